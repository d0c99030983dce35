"""Processes that stand still under load: no answer ever goes to another request. `-s` prints the counts.

All but the last test have no supervisor, which kills most stopped processes sooner: the server by itself must give no
wrong answer.
NANN_FREEZES sets how often each slow test freezes something.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable
from contextlib import suppress

import numpy as np
import pytest
from support.distinct_load import DistinctLoad
from support.own_server import own_server
from support.serve_process import serving, stubs
from support.under_load import asked_for_readiness
from support.waiting import wait_until

from nann.python_backend.server.processes import DEAD, child_processes

pytestmark = pytest.mark.triton

EVERYTHING = "everything"
"""All processes, as `docker pause` freezes them."""
MODELS = ("feature_transform", "user_encoder", "beam_retrieval", "scorer")
TABLE = [*((model, seconds) for model in MODELS for seconds in (1.0, 1.5)), (EVERYTHING, 1.5)]
WHOLE_AGAIN_S = 10.0


@pytest.fixture(scope="module")
def alone(live_bundle_path, tmp_path_factory):
    """A server without a supervisor, and the folder with its repository."""
    folder = tmp_path_factory.mktemp("alone")
    with own_server(live_bundle_path, folder) as server:
        yield server, folder


def freeze(triton: int, what: str, seconds: float, serve: Iterable[int] = ()) -> None:
    """Stops processes for a time. `serve` are those that belong to everything besides tritonserver and its stubs."""
    processes = [*serve, triton, *stubs(triton).values()] if what == EVERYTHING else [stubs(triton)[what]]
    _signal(processes, signal.SIGSTOP)
    time.sleep(seconds)
    _signal(processes, signal.SIGCONT)


def _signal(processes: Iterable[int], number: int) -> None:
    for process in processes:
        with suppress(ProcessLookupError):  # it was killed and its model loaded again
            os.kill(process, number)


def freeze_alone(alone, bundle, what: str, seconds: float, threads: int, times: int) -> None:
    """Freezes a process several times, and loads its model again where the server has killed it."""
    server, folder = alone
    triton, killed = server.pid, 0
    with DistinctLoad(server.grpc_url, bundle, threads) as load:
        for _ in range(times):
            freeze(triton, what, seconds)
            time.sleep(0.3)  # for a late answer to reach somebody
            if what != EVERYTHING and what not in stubs(triton):
                killed += 1
                os.utime(folder / "repository" / what / "1")
                server.control.load(what)
            load.wait_for_answers(5 * threads)
    print(
        f"\n{what} {seconds} s, {threads} clients, {times} times: {len(load.foreign)} answers to another request, "
        f"{load.right} right, {load.failures.total()} refused, the process killed {killed} times"
    )
    assert load.foreign == []
    assert server.pid == triton


def test_a_frozen_search_is_killed_and_answers_nobody_else(alone, bundle):
    freeze_alone(alone, bundle, "beam_retrieval", 1.5, threads=4, times=2)
    assert "stood still and its request was given up; it is killed" in alone[0].options.log_file.read_text()


def test_a_pause_of_everything_fails_no_request(alone, bundle):
    with DistinctLoad(alone[0].grpc_url, bundle) as load:
        freeze(alone[0].pid, EVERYTHING, 1.5)
        load.wait_for_answers(20)
    assert (load.foreign, load.failures) == ([], {})


@pytest.mark.parametrize("model", ["user_encoder", pytest.param("scorer", marks=pytest.mark.slow)])
def test_thousands_of_requests_to_a_dead_process_block_nothing(alone, bundle, model):
    """The queue of messages to a process has 1,000 places, and each failed request takes two."""
    server, folder = alone
    with DistinctLoad(server.grpc_url, bundle, threads=8, pause_s=0) as load:
        os.kill(stubs(server.pid)[model], signal.SIGKILL)
        wait_until(lambda: load.failures.total() > 1500)
        os.utime(folder / "repository" / model / "1")
        server.control.load(model)
        load.wait_for_answers(100)
    assert load.foreign == []


def test_a_model_whose_process_died_under_load_is_unloaded(alone, bundle):
    """Its process stays a zombie until then; without the preloaded library for good, with all threads of the model."""
    server, folder = alone
    with DistinctLoad(server.grpc_url, bundle) as load:
        for model in ("feature_transform", "beam_retrieval"):
            failed = load.failures.total()
            os.kill(stubs(server.pid)[model], signal.SIGKILL)
            wait_until(lambda before=failed: load.failures.total() > before)
            os.utime(folder / "repository" / model / "1")
            server.control.load(model)
            load.wait_for_answers(20)
        wait_until(lambda: DEAD not in child_processes(server.pid).values())
    assert load.foreign == []


@pytest.mark.slow
@pytest.mark.parametrize("threads", [4, 1])
@pytest.mark.parametrize(("what", "seconds"), TABLE, ids=str)
def test_freezes(alone, bundle, what, seconds, threads):
    freeze_alone(alone, bundle, what, seconds, threads, int(os.environ.get("NANN_FREEZES", "5")))


@pytest.mark.slow
def test_freezes_of_random_processes_for_random_times(live_bundle_path, bundle, tmp_path):
    rng, took_s = np.random.default_rng(1), []
    times = int(os.environ.get("NANN_FREEZES", "20"))
    with (
        serving(live_bundle_path, tmp_path) as serve,
        DistinctLoad(serve.grpc_url, bundle) as load,
        asked_for_readiness(serve) as ready,
    ):
        triton = serve.triton
        for number in range(times):
            what, seconds = str(rng.choice((*MODELS, EVERYTHING))), float(rng.uniform(0.5, 10))
            before, processes = len(ready), serve.stubs
            freeze(triton, what, seconds, [serve.process.pid])
            took_s.append(load.wait_for_answers(20))
            assert load.foreign == [], (number, what, seconds)
            assert serve.stubs == processes or False in ready[before:], "not ready while a process was away"
            wait_until(lambda: ready[-1], "ready again", timeout_s=WHOLE_AGAIN_S)
        assert serve.triton == triton
    print(
        f"\n{times} random freezes: 0 answers to another request, {load.right} right, {load.failures.total()} refused; "
        f"whole again after {np.median(took_s):.1f} s (median), at most {max(took_s):.1f} s"
    )
    assert max(took_s) < WHOLE_AGAIN_S
