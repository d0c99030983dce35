"""Processes that stand still under load: no answer ever goes to another request. `-s` prints the counts.

NANN_FREEZES sets how often each case of the table, and the random one, is repeated.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterable
from contextlib import suppress

import numpy as np
import pytest
from support.distinct_load import DistinctLoad
from support.serve_process import ServeProcess, serving

pytestmark = pytest.mark.triton

EVERYTHING = "everything"
"""All processes, as `docker pause` freezes them."""
MODELS = ("feature_transform", "user_encoder", "beam_retrieval", "scorer")
TABLE = [*((model, 1.0) for model in MODELS), *((model, 1.5) for model in MODELS), (EVERYTHING, 1.5)]
WHOLE_AGAIN_S = 10.0


@pytest.fixture(scope="module")
def serve(live_bundle_path, tmp_path_factory):
    with serving(live_bundle_path, tmp_path_factory.mktemp("serve")) as serve:
        yield serve


def frozen(serve: ServeProcess, what: str, seconds: float) -> None:
    """Stops processes for a time."""
    stubs = serve.stubs()
    processes = [serve.triton, *stubs.values()] if what == EVERYTHING else [stubs[what]]
    _signal(processes, signal.SIGSTOP)
    time.sleep(seconds)
    _signal(processes, signal.SIGCONT)


def _signal(processes: Iterable[int], number: int) -> None:
    for process in processes:
        with suppress(ProcessLookupError):  # the server has killed it
            os.kill(process, number)


def repeat(serve: ServeProcess, bundle, times: int, choose: Callable[[], tuple[str, float]], threads: int) -> None:
    """Freezes what `choose` returns, `times` times, under clients; checks every answer and that the service returns."""
    triton, took_s = serve.triton, []
    with DistinctLoad(serve.grpc_url, bundle, threads) as load:
        for number in range(times):
            what, seconds = choose()
            frozen(serve, what, seconds)
            took_s.append(load.wait_for_answers(5 * threads))
            assert load.foreign == [], (number, what, seconds)
            assert took_s[-1] < WHOLE_AGAIN_S, (number, what, seconds)
    assert serve.triton == triton
    print(
        f"\n{times} freezes, {threads} clients: {load.right} right answers, 0 to another request, "
        f"{load.failures.total()} refused; whole again after at most {max(took_s):.1f} s"
    )


def test_a_frozen_search_answers_nobody_else(serve, bundle):
    repeat(serve, bundle, 2, lambda: ("beam_retrieval", 1.3), threads=4)
    assert "stood still and its request was given up; it is killed" in (serve.output.parent / "log").read_text()


def test_a_pause_of_everything_costs_no_answer(serve, bundle):
    with DistinctLoad(serve.grpc_url, bundle) as load:
        frozen(serve, EVERYTHING, 1.5)
        load.wait_for_answers(20)
    assert load.foreign == []


@pytest.mark.slow
@pytest.mark.parametrize("threads", [4, 1])
@pytest.mark.parametrize(("what", "seconds"), TABLE, ids=lambda value: str(value))
def test_freezes(serve, bundle, what, seconds, threads):
    repeat(serve, bundle, int(os.environ.get("NANN_FREEZES", "5")), lambda: (what, seconds), threads)


@pytest.mark.slow
def test_freezes_of_random_processes_for_random_times(serve, bundle):
    rng = np.random.default_rng(1)
    places = (*MODELS, EVERYTHING)
    times = int(os.environ.get("NANN_FREEZES", "20"))
    repeat(serve, bundle, times, lambda: (rng.choice(places), float(rng.uniform(0.5, 10))), threads=4)
