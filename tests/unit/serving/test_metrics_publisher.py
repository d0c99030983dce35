from __future__ import annotations

import threading

import numpy as np
import pytest

BOUNDS = (0.1, 0.5, 2.0)


class CountingMetric:
    def __init__(self) -> None:
        self.value, self.messages = 0.0, 0

    def increment(self, amount: float) -> None:
        self.value += amount
        self.messages += 1


@pytest.fixture
def made():
    from nann.python_backend.watch.publisher import Histogram

    metrics = [CountingMetric() for _ in range(len(BOUNDS) + 3)]
    *buckets, total, count = metrics
    return Histogram(BOUNDS, buckets, total, count, threading.Lock()), metrics


def test_buckets_count_what_is_at_or_below_their_bound(made):
    histogram, metrics = made
    values = np.array([0.05, 0.1, 0.3, 0.5, 0.6, 2.0, 7.0, 90.0])
    for value in values[:5]:
        histogram.observe(value)
    histogram.send(histogram.take())
    for value in values[5:]:
        histogram.observe(value)
    histogram.send(histogram.take())
    expected = [*((values <= bound).sum() for bound in (*BOUNDS, np.inf)), values.sum(), len(values)]
    np.testing.assert_allclose([metric.value for metric in metrics], expected)


def test_messages_are_as_many_as_counters_that_grew(made):
    histogram, metrics = made
    for _ in range(1000):
        histogram.observe(1.0)
    histogram.send(histogram.take())
    histogram.send(histogram.take())  # nothing came
    assert [metric.messages for metric in metrics] == [0, 0, 1, 1, 1, 1]
