"""What `nann batch --url` does where servers are busy, or not what they were."""

from contextlib import ExitStack

import grpc
import numpy as np
import polars as pl
import pytest
from support.fake_server import FakeServer, running

from nann.cli import batch_served
from nann.cli.batch_served import ServedAnswers
from nann.errors import ConfigError, ServerError, ServerOverloaded
from nann.search_params import SearchOptions
from nann.training.batch.histories import Histories

BUSY = (grpc.StatusCode.UNAVAILABLE, "Exceeds maximum queue size")
NUMBERS = {"bundle": "abc", "item_id_kind": "numbers"}
USERS = Histories(pl.Series("user", range(40)), np.arange(0, 82, 2), np.arange(80) + 1)
BLOCKS = [USERS[:16], USERS[16:32], USERS[32:]]


@pytest.fixture
def opened():
    """Opens the answers of running fakes, and closes everything at the end."""
    with ExitStack() as stack:

        def open_all(*services, in_flight=2):
            urls = [stack.enter_context(running(service)) for service in services]
            return stack.enter_context(ServedAnswers(urls, "grpc", SearchOptions(top_k=1), 20.0, in_flight))

        yield open_all


def test_answers_come_in_order_and_wait_while_servers_are_busy(opened, monkeypatch):
    monkeypatch.setattr(batch_served, "_BUSY_WAIT_S", 0.01)
    service = FakeServer([BUSY] * 3, settings=NUMBERS)
    answers = list(opened(service).answers(BLOCKS))
    assert [len(answer.scores) for answer in answers] == [16, 16, 8]
    assert [answer.unknown_items for answer in answers] == [16, 16, 8]  # one a user
    assert len(service.requests) == 3 + 3
    assert {request.parameters["priority"].int64_param for request in service.requests} <= {0, 3}


def test_servers_that_stay_busy_end_the_job(opened, monkeypatch):
    monkeypatch.setattr(batch_served, "_BUSY_S", 0.0)
    with pytest.raises(ServerOverloaded, match="Exceeds maximum queue size"):
        list(opened(FakeServer([BUSY] * 9, settings=NUMBERS)).answers(BLOCKS))


def test_another_bundle_or_search_in_the_meantime_ends_the_job(opened):
    service = FakeServer(settings={**NUMBERS, "bundle_identity": "1"})
    served = opened(service)
    served.check()
    service.settings["bundle_identity"] = "2"
    with pytest.raises(
        ServerError, match=r"from bundle abc \(identity 2\), and answered from abc \(identity 1\) before"
    ):
        served.check()
    del service.settings["bundle_identity"]
    service.settings["bundle"] = "def"
    with pytest.raises(
        ServerError, match=r"the servers answer from bundle def, and answered from abc \(identity 1\) before"
    ):
        served.check()


def test_servers_must_have_one_bundle_and_say_which(opened):
    with pytest.raises(ConfigError, match=r"from different bundles: .* abc, .* def; deploy the same one to all"):
        opened(FakeServer(settings=NUMBERS), FakeServer(settings={**NUMBERS, "bundle": "def"}))
    with pytest.raises(ConfigError, match=r"from different bundles: .* abc, .* abc \(identity 2\); deploy"):
        opened(FakeServer(settings=NUMBERS), FakeServer(settings={**NUMBERS, "bundle_identity": "2"}))
    with pytest.raises(ServerError, match="the server does not say which bundle it serves; start it with `nann serve`"):
        opened(FakeServer(settings={}))
