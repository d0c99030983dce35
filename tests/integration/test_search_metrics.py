"""The server's own metrics count the requests and answers correctly."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from support import observed
from support.live_bundle import FAILING_INDEX, item_ids
from support.own_server import own_server
from support.waiting import wait_until

from nann.clients import RetrievalClient
from nann.errors import NannError

pytestmark = pytest.mark.triton


@pytest.fixture(scope="module")
def fresh(live_bundle_path, tmp_path_factory):
    """A server without other clients, with two instances of beam_retrieval, and its client."""
    folder = tmp_path_factory.mktemp("metrics")
    with (
        own_server(live_bundle_path, folder, instances=2) as server,
        RetrievalClient(server.grpc_url, timeout_s=20) as client,
    ):
        yield server, client


def settled(server, requests: int) -> observed.Metrics:
    """Waits until the metrics count this number of requests, and returns them."""
    return observed.metrics_when(server, lambda now: now("nann_requests_total") >= requests)


def test_everything_is_counted(fresh, bundle):
    server, client = fresh
    before = observed.Metrics.of(server)
    for outcome in ("complete", "partial", "degraded", "refused", "late", "failed"):
        assert before("nann_requests_total", model="beam_retrieval", version="1", outcome=outcome) == 0
    histories = observed.users(20)
    results = [client.retrieve(ids) for ids in histories]
    results.append(client.retrieve(histories[:16]))
    results.append(client.retrieve(histories[0], entry="seeds"))
    client.retrieve([5, 6, 0, -1, *histories[0]])  # two unknown ids, and two of padding
    for ids, parameters in ((histories[0], {"top_k": 5000}), ([int(item_ids()[FAILING_INDEX])], {})):
        with pytest.raises(NannError):
            client.retrieve(ids, **parameters)
    ids = sum(map(len, [*histories, *histories[:16], *histories[:1] * 3])) + 2 + 1
    wait_until(lambda: observed.Metrics.of(server)("nann_behavior_items_total") == ids)  # of another process
    metrics = settled(server, 25)

    assert metrics("nann_requests_total", outcome="complete") == 23
    assert metrics("nann_requests_total", outcome="refused") == 1
    assert metrics("nann_requests_total", outcome="failed") == 1
    assert metrics("nann_users_total") == 20 + 16 + 1 + 1 + 1
    scored = sum(int(result.items_scored.sum()) for result in results)
    # The two others were searched for as well: one like the first user, one failed in its first call.
    entry_points = len(bundle.graph.entry_points)
    assert metrics("nann_items_scored_total") == scored + int(results[0].items_scored[0]) + entry_points
    assert metrics("nann_scorer_places_total") > metrics("nann_items_scored_total")  # users of one batch differ
    assert metrics("nann_rounds_total") > metrics("nann_scorer_calls_total") > 23
    assert metrics("nann_unknown_items_total", model="feature_transform") == 2
    assert metrics("nann_bundle_info", bundle=bundle.bundle_id) == 1
    assert metrics("nann_bundle_created_timestamp_seconds") == 1767323045


def test_times_are_histograms_and_agree(fresh):
    server, client = fresh
    asked = observed.Metrics.of(server)("nann_requests_total")
    client.retrieve(observed.users(1)[0], entry="seeds")
    metrics = settled(server, int(asked) + 1)
    searched = metrics("nann_search_duration_seconds_count")
    assert metrics("nann_request_duration_seconds_count") == searched > 0
    assert metrics("nann_search_duration_seconds_bucket", le="+Inf") == searched
    assert metrics("nann_stage_duration_seconds_count", stage="score") == searched
    assert 0 < metrics("nann_stage_duration_seconds_count", stage="light_walk") < searched
    stages = metrics("nann_stage_duration_seconds_sum")
    assert 0 < stages <= metrics("nann_search_duration_seconds_sum") <= metrics("nann_request_duration_seconds_sum")


def test_requests_at_once_and_two_instances_make_one_number(fresh):
    server, client = fresh
    asked = int(observed.Metrics.of(server)("nann_requests_total"))
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(client.retrieve, observed.users(60)))
    metrics = settled(server, asked + 60)
    assert metrics("nann_requests_total") == asked + 60
    assert metrics("nann_bundle_info") == 1
