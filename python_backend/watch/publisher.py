"""Metrics of one model version: added up here, sent to Triton by a thread of their own."""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any, TypeVar

import triton_python_backend_utils as pb_utils

_INTERVAL_S = 1.0
_Metric = TypeVar("_Metric", bound="Counter | Histogram")


class Counter:
    """A number that only grows; its name ends with `_total`."""

    def __init__(self, metric: Any, lock: threading.Lock) -> None:
        self._metric = metric
        self._lock = lock
        self._pending: float = 0

    def add(self, amount: float) -> None:
        """Adds an amount of at least 0."""
        with self._lock:
            self._pending += amount

    def take(self) -> float:
        """What came since the last time; the lock is held."""
        amount, self._pending = self._pending, 0
        return amount

    def send(self, amount: float) -> None:
        """Tells Triton."""
        _increment(self._metric, amount)


class Histogram:
    """A distribution over fixed buckets: counters with the names and labels of a Prometheus histogram.

    Triton's own histogram takes a message for each value. These take one a bucket, however many values came.

    Args:
        bounds: upper ends of the buckets but the last, which has none, ascending.
        buckets: Triton's counters of values at or below each bound, and of all.
        total: Triton's counter of their sum.
        count: Triton's counter of how many.
        lock: held by whoever adds or takes.
    """

    def __init__(
        self, bounds: Sequence[float], buckets: Sequence[Any], total: Any, count: Any, lock: threading.Lock
    ) -> None:
        self._bounds = bounds
        self._metrics = (*buckets, total, count)
        self._lock = lock
        self._counts = [0] * len(buckets)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        """Adds one value of at least 0."""
        with self._lock:
            self._counts[bisect_left(self._bounds, value)] += 1
            self._sum += value

    def take(self) -> list[float]:
        """What came since the last time, a number for each counter; the lock is held."""
        below = list(accumulate(self._counts))
        amounts = [*below, self._sum, below[-1]]
        self._counts, self._sum = [0] * len(self._counts), 0.0
        return amounts

    def send(self, amounts: list[float]) -> None:
        """Tells Triton."""
        for metric, amount in zip(self._metrics, amounts, strict=True):
            _increment(metric, amount)


def _increment(metric: Any, amount: float) -> None:
    if amount:
        metric.increment(amount)
        time.sleep(0)  # an update holds the GIL; a search that waits for it goes on here


class MetricsPublisher:
    """Makes metrics and keeps Triton's copy of them up to date.

    An update of Triton's is a message to the server's process and back, during which Python stands still: 10 to 20 us
    where a core is free for the answer, milliseconds where none is. So `execute()` only adds numbers up, and a thread
    sends the sums of all batches since its last turn, which costs the same at any load.

    Metrics are sent in the order in which they were made.

    All instances of a model send to the same metrics, so labels tell versions apart and not instances.

    Args:
        args: what Triton gives to `initialize`: name and version of the model become labels.
    """

    def __init__(self, args: Mapping[str, str]) -> None:
        self._labels = {"model": args["model_name"], "version": args["model_version"]}
        # Triton deletes a family, and its metrics with it, once nobody holds it.
        self._families: dict[str, Any] = {}
        self._gauges: list[Any] = []
        self._deferred: list[Any] = []
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="metrics", daemon=True)
        self._thread.start()

    def counter(self, name: str, description: str, **labels: str) -> Counter:
        """A counter, from now on reported as 0."""
        metric = self._family(name, description, pb_utils.MetricFamily.COUNTER).Metric(labels=self._labels | labels)
        return self._add(Counter(metric, self._lock))

    def histogram(self, name: str, description: str, bounds: Sequence[float], **labels: str) -> Histogram:
        """A histogram; `bounds` are its buckets' upper ends, ascending."""

        def metric(suffix: str, **more: str) -> Any:
            family = self._family(f"{name}_{suffix}", description, pb_utils.MetricFamily.COUNTER)
            return family.Metric(labels=self._labels | labels | more)

        buckets = [metric("bucket", le=le) for le in (*(f"{bound:g}" for bound in bounds), "+Inf")]
        return self._add(Histogram(bounds, buckets, metric("sum"), metric("count"), self._lock))

    def gauge(self, name: str, description: str, value: float, **labels: str) -> None:
        """A value that stays as it is for as long as the model is loaded."""
        metric = self._family(name, description, pb_utils.MetricFamily.GAUGE).Metric(labels=self._labels | labels)
        metric.set(value)
        self._gauges.append(metric)

    def close(self) -> None:
        """Sends what is left and ends the thread."""
        self._closing.set()
        self._thread.join()

    def _family(self, name: str, description: str, kind: Any) -> Any:
        if name not in self._families:
            self._families[name] = pb_utils.MetricFamily(name=name, description=description, kind=kind)
        return self._families[name]

    def _add(self, metric: _Metric) -> _Metric:
        with self._lock:
            self._deferred.append(metric)
        return metric

    def _run(self) -> None:
        last = False
        while not last:
            last = self._closing.wait(_INTERVAL_S)
            with self._lock:
                taken = [(metric, metric.take()) for metric in self._deferred]
            for metric, what in taken:
                metric.send(what)
