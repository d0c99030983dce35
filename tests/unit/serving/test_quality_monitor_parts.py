"""The quality monitor without Triton: which users it draws and compares, and which failures it survives."""

from __future__ import annotations

import itertools
import threading

import numpy as np
import pytest
from support import triton_fakes
from support.waiting import wait_until

from nann import item_sets
from nann.search_input import UserBatch

ITEMS = 3000


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


def users(*places, blocked=None) -> UserBatch:
    return UserBatch(np.array(places, np.float32)[:, None], None, blocked)


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
        made.append(QualityMonitor(lambda rows: scorer, share, load, publisher))
        return made[-1]

    yield make
    scorer.go.set()
    for monitor in made:
        monitor.close()
    publisher.close()


def values(name):
    return triton_fakes.Metric.values[f"nann_quality_{name}_total"]


def test_it_counts_what_the_answer_has_of_the_exact_one(make, scorer):
    answered = np.array([[10, 9, 11, 400, -1]])  # exact: 10, 9, 11, 8, 12
    make().offer(users(10), answered, ITEMS, None)
    wait_until(lambda: values("items_wanted") == 5 and values("items_found") == 3)
    assert max(scorer.widths) == 512, "a block at a time"
    assert sum(scorer.widths) == ITEMS


def test_whoever_sees_that_a_user_was_compared_sees_their_items(make, monkeypatch):
    sent: list[str] = []
    monkeypatch.setattr(triton_fakes.Metric, "increment", lambda metric, by: sent.append(metric._name))
    make().offer(users(10), np.array([[10, 9, 11, 400, -1]]), ITEMS, None)
    wait_until(lambda: len(sent) == 3)
    assert sent[-1] == "nann_quality_users_total"


def test_items_that_the_user_may_not_get_are_not_missed(make):
    allowed = item_sets.of_items(np.array([3, 5, 20], np.int32), ITEMS)
    blocked = item_sets.invert(allowed, ITEMS)[None]
    make().offer(users(10, blocked=blocked), np.array([[3, 5, 10, -1, -1]]), ITEMS, None)
    wait_until(lambda: values("items_wanted") == 3 and values("items_found") == 2)


def test_the_share_that_is_drawn(make):
    monitor = make(share=0.25)
    assert sum(len(monitor.draw(16)) for _ in range(500)) / 8000 == pytest.approx(0.25, abs=0.03)


def test_a_scorer_that_fails_is_counted_and_survived(make, scorer):
    monitor, states, answered = make(), users(10), np.array([[10]])
    scorer.failing = True
    monitor.offer(states, answered, ITEMS, None)
    wait_until(lambda: values("users") == 1)
    assert values("items_wanted") == 0
    scorer.failing = False
    monitor.offer(states, answered, ITEMS, None)
    wait_until(lambda: values("items_found") == 1)


def test_it_never_waits_and_never_keeps_more_than_its_queue(make, scorer):
    monitor = make()
    scorer.go.clear()
    monitor.offer(users(*[0] * 60), np.full((60, 1), 0), ITEMS, None)
    wait_until(lambda: values("users") >= 60 - 17)
    scorer.go.set()
    wait_until(lambda: values("users") == 60 and values("items_wanted") in (16, 17))


def test_it_pauses_for_its_share_of_the_time_and_a_pause_ends_when_it_closes(make, scorer, monkeypatch):
    from nann.python_backend.watch import quality

    readings_s = itertools.count(0, 10)  # every scorer call takes ten seconds
    monkeypatch.setattr(quality.time, "monotonic", lambda: next(readings_s))
    monitor = make(load=0.001)
    pauses_s, wait = [], monitor._closing.wait
    monkeypatch.setattr(monitor._closing, "wait", lambda seconds: pauses_s.append(seconds) or wait(seconds))
    monitor.offer(users(10), np.array([[10]]), ITEMS, None)
    wait_until(lambda: pauses_s)
    monitor.close()
    assert pauses_s == [pytest.approx(9990)]
    assert scorer.widths == [512]
