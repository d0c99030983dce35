"""The quality monitor without Triton: what it draws, compares and survives."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from support import triton_fakes

IDS = np.arange(100, 3100, dtype=np.int64)


class Scorer:
    """Score = -|item - state|; fails or blocks on demand."""

    def __init__(self) -> None:
        self.widths: list[int] = []
        self.failing = False
        self.go = threading.Event()
        self.go.set()

    def score(self, user_states: np.ndarray, candidates: np.ndarray) -> np.ndarray:
        self.go.wait(10)
        if self.failing:
            raise RuntimeError("no scorer")
        self.widths.append(candidates.shape[1])
        return -np.abs(candidates - user_states).astype(np.float32)


@pytest.fixture
def scorer():
    return Scorer()


@pytest.fixture
def make(scorer):
    from nann.python_backend.watch.publisher import MetricsPublisher
    from nann.python_backend.watch.quality import QualityMonitor

    publisher = MetricsPublisher({"model_name": "beam_retrieval", "model_version": "1"})
    made = []

    def make(share=1.0, load=1.0):
        made.append(QualityMonitor(scorer, IDS, share, load, publisher))
        return made[-1]

    yield make
    scorer.go.set()
    for monitor in made:
        monitor.close()
    publisher.close()


def until(condition):
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def values(name):
    return triton_fakes.Metric.values[f"nann_quality_{name}_total"]


def test_it_counts_what_the_answer_has_of_the_exact_one(make, scorer):
    answered = np.array([[110, 109, 111, 500, -1]])  # exact: 110, 109, 111, 108, 112
    make().offer(np.array([[10.0]], np.float32), answered)
    until(lambda: values("items_wanted") == 5)
    assert values("items_found") == 3
    assert max(scorer.widths) == 512, "a block at a time"
    assert sum(scorer.widths) == len(IDS)


def test_the_share_that_is_drawn(make):
    monitor = make(share=0.25)
    assert sum(len(monitor.draw(16)) for _ in range(500)) / 8000 == pytest.approx(0.25, abs=0.03)


def test_a_scorer_that_fails_is_counted_and_survived(make, scorer):
    monitor, states, answered = make(), np.array([[10.0]], np.float32), np.array([[110]])
    scorer.failing = True
    monitor.offer(states, answered)
    until(lambda: values("users") == 1)
    assert values("items_wanted") == 0
    scorer.failing = False
    monitor.offer(states, answered)
    until(lambda: values("items_found") == 1)


def test_it_never_waits_and_never_keeps_more_than_its_queue(make, scorer):
    monitor = make()
    scorer.go.clear()
    monitor.offer(np.zeros((60, 1), np.float32), np.full((60, 1), 100))
    until(lambda: values("users") >= 60 - 17)
    scorer.go.set()
    until(lambda: values("users") == 60)
    assert values("items_wanted") in (16, 17)
