from __future__ import annotations

import numpy as np
import pytest

from nann import stage_clock
from nann.kernels import NATIVE
from nann.stage_clock import STAGES, StageClock


def test_timed_kernels_give_the_same_and_their_time_is_that_of_their_stage() -> None:
    clock = StageClock()
    timed = clock.kernels(NATIVE)
    indptr, neighbors = np.array([0, 2, 2, 2], np.int32), np.array([1, 2], np.int32)
    visited = np.zeros((1, 1), np.uint64)
    assert timed.expand(indptr, neighbors, visited, np.zeros((1, 1), np.int32)).tolist() == [[1, 2]]
    assert clock.elapsed_ns["expand"] > 0
    assert [stage for stage in STAGES if clock.elapsed_ns[stage]] == ["expand"]
    items, scores = np.array([[1]], np.int32), np.array([[0.5]], np.float32)
    assert timed.merge_top(items, scores, items + 1, scores + 1, np.array([1], np.int32))[0].tolist() == [[2]]
    assert clock.elapsed_ns["select"] > 0


def test_a_scorer_is_timed_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    now_ns = 5

    class SlowScorer:
        def score(self, user_states: np.ndarray, candidates: np.ndarray) -> np.ndarray:
            nonlocal now_ns
            now_ns += 10
            return candidates.astype(np.float32)

    monkeypatch.setattr(stage_clock.time, "perf_counter_ns", lambda: now_ns)
    clock = StageClock()
    scorer = clock.scorer(SlowScorer())
    for _ in range(2):
        assert scorer.score(np.zeros((1, 2), np.float32), np.array([[4]], np.int32)).tolist() == [[4.0]]
    assert clock.scorer_calls == 2
    assert clock.elapsed_ns["score"] == 20


def test_a_call_that_fails_is_timed_too() -> None:
    clock = StageClock()
    with pytest.raises(IndexError):
        clock.kernels(NATIVE).mark(np.zeros((1, 1), np.uint64), np.array([[64]], np.int32))
    assert clock.elapsed_ns["mark"] > 0
