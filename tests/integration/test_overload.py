"""Twice the server's capacity: accepted requests are answered in time, the others are refused at once.

The scorer sleeps as if it waited for a GPU, so that its calls are the bottleneck and not this machine's cores. With so
slow a scorer, the queue's timeout would refuse requests that its size accepts, so the timeout is raised here.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed

import numpy as np
import pytest
from support.live_bundle import item_ids
from support.own_server import own_server

from nann.clients import RetrievalClient
from nann.errors import ServerOverloaded
from nann.perf.load.clients import LoadTest
from nann.shape_grid import MAX_BATCH_SIZE

pytestmark = pytest.mark.triton

OPTIONS = {"ef": "20,40,60", "rounds": "0,1,2"}
SCORER_WAIT_S = 0.2
QUEUE_SIZE = 64
BATCHES = QUEUE_SIZE // MAX_BATCH_SIZE + 2
"""The most that an answer takes, in times of a batch (docs/operations.md): what waits, what is being searched, and one
for all around it."""


@pytest.fixture(scope="module")
def overloaded_server(live_bundle_path, tmp_path_factory) -> Iterator:
    folder = tmp_path_factory.mktemp("overload")
    with own_server(live_bundle_path, folder, scorer_wait_s=SCORER_WAIT_S, queue_timeout_s=30) as server:
        yield server


@pytest.fixture(scope="module")
def users() -> list[list[int]]:
    return np.random.default_rng(3).choice(item_ids()[20:], (200, 5)).tolist()


@pytest.fixture(scope="module")
def peak_qps(overloaded_server, users) -> float:
    """A closed loop with enough clients for full batches, but too few to be refused."""
    test = LoadTest(overloaded_server.grpc_url, users, 12.0, 4.0, OPTIONS)
    result = test.closed_loop(3 * MAX_BATCH_SIZE, processes=1)
    print(f"closed loop: {result}")
    return result.qps


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_who_finds_the_queue_full_is_refused_at_once(overloaded_server, protocol):
    url = overloaded_server.grpc_url if protocol == "grpc" else overloaded_server.http_url
    asked = QUEUE_SIZE + 3 * MAX_BATCH_SIZE

    def ask(_: int) -> str:
        with RetrievalClient(url, protocol, timeout_s=60) as client:
            try:
                client.retrieve(item_ids()[20:25], ef="20,40,60", rounds="0,0,3")
            except ServerOverloaded as error:
                assert "is overloaded" in str(error)  # noqa: PT017 - one of many, in a thread
                return "refused"
            return "answered"

    with ThreadPoolExecutor(asked) as pool:
        requests = [pool.submit(ask, number) for number in range(asked)]
        outcomes = [request.result() for request in as_completed(requests)]  # in the order in which they ended
    assert outcomes.count("answered") >= QUEUE_SIZE
    assert "refused" in outcomes
    assert outcomes[-MAX_BATCH_SIZE:] == ["answered"] * MAX_BATCH_SIZE, "a refusal must not wait for the searches"


@pytest.mark.slow
def test_twice_the_capacity(overloaded_server, users, peak_qps):
    result = LoadTest(overloaded_server.grpc_url, users, 25.0, 8.0, OPTIONS).open_loop(2 * peak_qps)
    batch_ms = 1000 * MAX_BATCH_SIZE / peak_qps
    bound_ms = BATCHES * batch_ms
    print(f"open loop: {result}; a batch takes {batch_ms:.0f} ms, so the bound is {bound_ms:.0f} ms")
    print(f"goodput {result.goodput_qps / peak_qps:.1%} of the peak, p99 {result.p99_ms / bound_ms:.1%} of the bound")
    assert result.failed == result.late == 0
    assert result.goodput_qps >= 0.9 * peak_qps
    assert result.p99_ms <= bound_ms
    assert 0.3 < result.overloaded < 0.7
    assert result.refusal_p99_ms < batch_ms, "a refusal must not wait for the searches"


@pytest.mark.slow
def test_important_requests_wait_less(overloaded_server, users, peak_qps):
    """Priority 1 gets a tenth of the capacity, on top of a normal load that is already too high."""

    def load(share: float, priority: int):
        options = {**OPTIONS, "priority": priority}
        test = LoadTest(overloaded_server.grpc_url, users, 15.0, 8.0, options)
        return test.open_loop(share * peak_qps, seed=priority)

    with ThreadPoolExecutor(2) as pool:
        important, usual = pool.map(load, (0.1, 1.5), (1, 2))
    print(f"important: {important}\nusual: {usual}")
    assert important.overloaded == important.failed == 0
    assert important.goodput_qps > 0
    assert important.p99_ms < usual.p50_ms
    assert usual.overloaded > 0.2
