"""Metrics of one model version: added up here, sent to Triton by a thread of their own."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

import triton_python_backend_utils as pb_utils

_INTERVAL_S = 0.25


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
        if amount:
            self._metric.increment(amount)


class Histogram:
    """A distribution over fixed buckets."""

    def __init__(self, metric: Any, lock: threading.Lock) -> None:
        self._metric = metric
        self._lock = lock
        self._pending: list[float] = []

    def observe(self, value: float) -> None:
        """Adds one value."""
        with self._lock:
            self._pending.append(value)

    def take(self) -> list[float]:
        """What came since the last time; the lock is held."""
        values, self._pending = self._pending, []
        return values

    def send(self, values: list[float]) -> None:
        """Tells Triton."""
        for value in values:
            self._metric.observe(value)
            time.sleep(0)  # an update holds the GIL; a search that waits for it goes on here


class MetricsPublisher:
    """Makes metrics and keeps Triton's copy of them up to date.

    An update of Triton's is a message to the server's process and back, during which Python stands still: 10 to 20 us.
    A search has a dozen of them. So `execute()` only adds numbers up, and a thread sends the sums of all batches since
    its last turn: a counter costs the same at any load, a histogram one message a value.

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

    def histogram(self, name: str, description: str, buckets: Sequence[float], **labels: str) -> Histogram:
        """A histogram; `buckets` are their upper bounds, ascending."""
        family = self._family(name, description, pb_utils.MetricFamily.HISTOGRAM)
        return self._add(Histogram(family.Metric(labels=self._labels | labels, buckets=list(buckets)), self._lock))

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

    def _add(self, metric: Any) -> Any:
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
