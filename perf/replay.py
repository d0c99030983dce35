"""A user's search in this process: the scorer calls that it makes, their time without a server, and its stages."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from nann.beam_search import beam_search
from nann.kernels import NATIVE, Kernels
from nann.scorer import Float32Array, Int32Array, Scorer
from nann.search_params import SearchParams
from nann.signature import CANDIDATES, PADDING_ITEM, SCORER, USER_STATE
from nann.stage_clock import STAGES, StageClock
from perf.quality import AskedUsers
from python_backend.model_files import ONNX_FILE
from python_backend.onnx_model import OnnxModel


class ServedScorer:
    """An exported scorer as the server runs it, in this process; a `nann.scorer.Scorer`.

    Args:
        path: of the ONNX file.
        threads: within one call.
    """

    def __init__(self, path: Path, threads: int) -> None:
        self._model = OnnxModel(path, SCORER, threads)

    @classmethod
    def of(cls, repository: Path, threads: int) -> ServedScorer:
        """That of an installed repository."""
        return cls(repository / SCORER.name / "1" / ONNX_FILE, threads)

    def score(self, user_states: Float32Array, candidates: Int32Array) -> Float32Array:
        """See `nann.scorer.Scorer`."""
        scores: Float32Array = self._model.run({USER_STATE.name: user_states, CANDIDATES.name: candidates})
        return scores


@dataclass
class Recorder:
    """A scorer that keeps what it is called with.

    Attributes:
        scorer: the one that answers.
        calls: user states and candidates of every call, copied.
    """

    scorer: ServedScorer
    calls: list[tuple[Float32Array, Int32Array]] = field(default_factory=list)

    def score(self, user_states: Float32Array, candidates: Int32Array) -> Float32Array:
        """See `nann.scorer.Scorer`."""
        self.calls.append((user_states.copy(), candidates.copy()))
        return self.scorer.score(user_states, candidates)


Calls = list[tuple[Float32Array, Int32Array]]


def record_calls(asked: AskedUsers, scorer: ServedScorer, params: SearchParams) -> list[Calls]:
    """The scorer calls of each user's search, made alone as at concurrency 1."""
    recorded = []
    for row in range(len(asked.states)):
        recorder = Recorder(scorer)
        _search(asked, row, recorder, params)
        recorded.append(recorder.calls)
    return recorded


def scored(calls: Calls) -> int:
    """How many candidates these calls score."""
    return sum(int(np.count_nonzero(candidates != PADDING_ITEM)) for _, candidates in calls)


def plain_ms(scorer: ServedScorer, users: Sequence[Calls]) -> list[float]:
    """Time of each user's calls, made again one after the other with nothing around them."""
    times = []
    for calls in users:
        start_ns = time.perf_counter_ns()
        for states, candidates in calls:
            scorer.score(states, candidates)
        times.append((time.perf_counter_ns() - start_ns) / 1e6)
    return times


def stage_ms(asked: AskedUsers, scorer: ServedScorer, params: SearchParams) -> dict[str, float]:
    """Mean time of each stage of a user's search in this process, and `python`, what is left of it."""
    clock, total_ns, users = StageClock(), 0, len(asked.states)
    kernels, timed = clock.kernels(NATIVE), clock.scorer(scorer)
    for row in range(users):
        start_ns = time.perf_counter_ns()
        _search(asked, row, timed, params, kernels)
        total_ns += time.perf_counter_ns() - start_ns
    stages = {stage: clock.elapsed_ns[stage] / users / 1e6 for stage in STAGES}
    return {**stages, "python": (total_ns - sum(clock.elapsed_ns.values())) / users / 1e6}


def _search(asked: AskedUsers, row: int, scorer: Scorer, params: SearchParams, kernels: Kernels = NATIVE) -> None:
    beam_search(
        asked.bundle.graph,
        scorer,
        asked.states[row : row + 1],
        params,
        light_vectors=asked.bundle.light_vectors,
        own_items=asked.queries.behaviors[row : row + 1],
        kernels=kernels,
    )
