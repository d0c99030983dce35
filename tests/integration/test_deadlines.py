"""Deadlines against a live server with a slow scorer."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from support.live_bundle import item_ids
from support.own_server import own_server
from support.reference import OfflineEnsemble
from support.waiting import wait_until

from nann.clients import RetrievalClient
from nann.errors import RequestTimeout
from nann.perf.servers.triton_counters import read_metrics
from nann.search_params import SearchParams
from nann.signature import STATUS_COMPLETE, STATUS_PARTIAL

pytestmark = pytest.mark.triton

SCORER_WAIT_S = 0.15
IDS = item_ids()[20:25].tolist()
LONG = {"ef": "20,40,60", "rounds": "1,3,6"}
LONG_PARAMS = SearchParams(20, (20, 40, 60), (1, 3, 6))


@pytest.fixture(scope="module")
def slow_server(live_bundle_path, tmp_path_factory) -> Iterator:
    with own_server(live_bundle_path, tmp_path_factory.mktemp("slow"), scorer_wait_s=SCORER_WAIT_S) as server:
        yield server


@pytest.fixture(scope="module", params=["grpc", "http"])
def slow_client(request, slow_server) -> Iterator[RetrievalClient]:
    url = slow_server.grpc_url if request.param == "grpc" else slow_server.http_url
    with RetrievalClient(url, request.param, timeout_s=60) as client:
        yield client


def test_a_late_request_gets_the_error_that_it_asked_for(slow_client):
    with pytest.raises(RequestTimeout, match=r"did not end within its deadline \(deadline_ms 300\); ask for less"):
        slow_client.retrieve(IDS, **LONG, deadline_ms=300)
    assert slow_client.retrieve(IDS).status.tolist() == [STATUS_COMPLETE]


def test_a_partial_answer_is_what_the_rounds_until_then_found(slow_client, bundle):
    result = slow_client.retrieve(IDS, **LONG, deadline_ms=1000, on_deadline="partial")
    assert result.status.tolist() == [STATUS_PARTIAL]
    stages = OfflineEnsemble(bundle).after_each_call(IDS, LONG_PARAMS)
    by_scored = {scored: (items, scores) for items, scores, scored in stages}
    assert int(result.items_scored[0]) in list(by_scored)[:-1]
    items, scores = by_scored[int(result.items_scored[0])]
    np.testing.assert_array_equal(result.item_ids[0], items)
    np.testing.assert_allclose(result.scores[0], scores, rtol=1e-5)


def test_each_request_has_its_own_deadline(slow_server, bundle):
    """Requests with time finish. Late ones return the items so far, or none if they waited too long."""

    def ask(limit):
        try:
            return client.retrieve(IDS, **LONG, **limit)
        except RequestTimeout:
            return None

    with RetrievalClient(slow_server.grpc_url, timeout_s=60) as client, ThreadPoolExecutor(9) as pool:
        before = scorer_calls(slow_server)
        busy = pool.submit(client.retrieve, IDS, rounds="0,0,1")  # meanwhile the others form one batch
        wait_until(lambda: scorer_calls(slow_server) > before)
        results = list(pool.map(ask, [{"deadline_ms": 1200, "on_deadline": "partial"}, {}] * 4))
        busy.result()
    ids, _, scored = OfflineEnsemble(bundle).retrieve(IDS, LONG_PARAMS)
    for result in results[1::2]:
        assert result.status.tolist() == [STATUS_COMPLETE]
        np.testing.assert_array_equal(result.item_ids[0], ids)
    in_time = [result for result in results[::2] if result is not None]
    assert in_time
    for result in in_time:
        assert result.status.tolist() == [STATUS_PARTIAL]
        assert 0 < result.items_scored[0] < scored


def test_a_request_whose_deadline_passed_in_the_queue_calls_no_scorer(slow_server):
    with RetrievalClient(slow_server.grpc_url, timeout_s=60) as client, ThreadPoolExecutor(2) as pool:
        before = scorer_calls(slow_server)
        busy = pool.submit(client.retrieve, IDS, **LONG)
        wait_until(lambda: scorer_calls(slow_server) > before)
        with pytest.raises(RequestTimeout, match="deadline_ms 1"):
            client.retrieve(IDS, deadline_ms=1, on_deadline="partial")  # no items were found
        busy.result()
        alone = scorer_calls(slow_server) - before
        client.retrieve(IDS, **LONG)
    assert scorer_calls(slow_server) - before == 2 * alone


def test_the_clients_timeout_is_the_servers_deadline(slow_server):
    """The server stops a search when its client has disconnected."""
    with RetrievalClient(slow_server.grpc_url, timeout_s=60) as client:
        before = scorer_calls(slow_server)
        client.retrieve(IDS, **LONG)
        full = scorer_calls(slow_server) - before
        with pytest.raises(RequestTimeout):
            client.retrieve(IDS, **LONG, timeout_s=SCORER_WAIT_S * 2.5)
        client.retrieve(IDS, rounds="0,0,1")  # one instance: answered after the abandoned one has ended
    assert full < scorer_calls(slow_server) - before < 2 * full


def scorer_calls(server) -> int:
    return int(read_metrics(server.metrics_url).get(("nv_inference_exec_count", "scorer"), 0))
