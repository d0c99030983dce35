"""The real perf_analyzer against the live server: it reports the answers of the server."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.live_bundle import attributes, item_ids

from nann.errors import ConfigError, ServerError
from nann.perf.load.perf_analyzer import Load, run_perf_analyzer
from nann.perf.load.perf_analyzer_install import find_perf_analyzer

pytestmark = pytest.mark.triton
WINDOW_S = 0.3


@pytest.fixture(scope="module")
def tool():
    try:
        return find_perf_analyzer(Path("build/perf_analyzer"))
    except ConfigError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def histories():
    rng = np.random.default_rng(3)
    return [rng.choice(item_ids(), size, replace=False).tolist() for size in (1, 5, 30)]


def test_closed_loop_answers_are_the_servers(tool, server, histories):
    from nann.clients import RetrievalClient

    point = run_perf_analyzer(tool, server.grpc_url, histories, Load(concurrency=2), WINDOW_S)
    assert (point.mode, point.value) == ("concurrency", 2)
    assert point.qps == pytest.approx(len(point.answers) / point.seconds)
    assert {answer.behavior_item_ids for answer in point.answers} <= {tuple(one) for one in histories}
    answer = point.answers[0]
    with RetrievalClient(server.grpc_url) as client:
        expected = client.retrieve(answer.behavior_item_ids)
    assert list(answer.item_ids) == expected.item_ids[0].tolist()
    assert answer.items_scored == expected.items_scored[0]
    assert 0 < point.percentile_ms(50) <= point.percentile_ms(99)


def test_open_loop_with_parameters(tool, server, histories):
    parameters = {"top_k": 5, "entry": "seeds", "exclude_history": True, "filter": "price < 50"}
    point = run_perf_analyzer(tool, server.grpc_url, histories, Load(request_rate=20.0), WINDOW_S, parameters)
    assert (point.mode, point.value) == ("request_rate", 20)
    assert {len(answer.item_ids) for answer in point.answers} == {5}
    prices = zip(item_ids().tolist(), attributes()["price"], strict=True)
    affordable = {item for item, price in prices if price is not None and price < 50}
    for answer in point.answers:
        assert set(answer.item_ids) <= affordable - set(answer.behavior_item_ids)


def test_a_refused_request_fails_with_the_reason(tool, server, histories):
    with pytest.raises(ServerError, match=r"perf_analyzer failed with status \d+: .*top_k"):
        run_perf_analyzer(tool, server.grpc_url, histories, Load(concurrency=1), WINDOW_S, {"top_k": -1})
