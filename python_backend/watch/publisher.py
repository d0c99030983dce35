"""Metrics of one model version: summed here, and sent to Triton by a thread."""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from typing import Any, TypeVar

import triton_python_backend_utils as pb_utils

_INTERVAL_S = 1.0
_Metric = TypeVar("_Metric", bound="Counter | Histogram | Reading")


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
        """The sum since the last call; the caller holds the lock."""
        amount, self._pending = self._pending, 0
        return amount

    def send(self, amount: float) -> None:
        """Sends it to Triton."""
        _increment(self._metric, amount)


class Histogram:
    """A distribution over fixed buckets: counters with the names and labels of a Prometheus histogram.

    Triton's own histogram needs a message per value. This one needs a message per bucket, for any number of values.

    Args:
        bounds: upper bounds of the buckets, ascending; the last bucket has none.
        buckets: Triton's counters of values at or below each bound, and of all values.
        total: Triton's counter of the sum of values.
        count: Triton's counter of the number of values.
        lock: held to add or to take.
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
        """The sums since the last call, one per counter; the caller holds the lock."""
        below = list(accumulate(self._counts))
        amounts = [*below, self._sum, below[-1]]
        self._counts, self._sum = [0] * len(self._counts), 0.0
        return amounts

    def send(self, amounts: list[float]) -> None:
        """Sends them to Triton."""
        for metric, amount in zip(self._metrics, amounts, strict=True):
            _increment(metric, amount)


class Reading:
    """A gauge whose value is read when metrics are sent."""

    def __init__(self, metric: Any, read: Callable[[], float]) -> None:
        self._metric = metric
        self._read = read
        self._sent: float | None = None

    def take(self) -> float:
        """The value now."""
        return self._read()

    def send(self, value: float) -> None:
        """Sends it to Triton, if it is another one."""
        if value != self._sent:
            self._metric.set(value)
            self._sent = value


def _increment(metric: Any, amount: float) -> None:
    if amount:
        metric.increment(amount)
        time.sleep(0)  # an update holds the GIL; a search that waits for it can run now


class MetricsPublisher:
    """Makes metrics and sends their values to Triton, in the order in which they were made.

    An update is a message to the server's process and back, during which no Python code runs: 10 to 20 us if a core is
    free for the answer, milliseconds if none is. So `execute()` only sums numbers, and a thread sends the sums of all
    batches since its last turn, at the same cost under any load.

    All instances of a model send to the same metrics, so labels distinguish versions but not instances.

    Args:
        args: Triton's argument of `initialize`; name and version of the model become labels.
    """

    def __init__(self, args: Mapping[str, str]) -> None:
        self._labels = {"model": args["model_name"], "version": args["model_version"]}
        # Triton deletes a family and its metrics when the last reference is gone.
        self._families: dict[str, Any] = {}
        self._gauges: list[Any] = []
        self._deferred: list[Any] = []
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="metrics", daemon=True)
        self._thread.start()

    def counter(self, name: str, description: str, **labels: str) -> Counter:
        """Makes a counter, which is reported as 0 from now on."""
        metric = self._family(name, description, pb_utils.MetricFamily.COUNTER).Metric(labels=self._labels | labels)
        return self._add(Counter(metric, self._lock))

    def histogram(self, name: str, description: str, bounds: Sequence[float], **labels: str) -> Histogram:
        """Makes a histogram; `bounds` are the upper bounds of its buckets, ascending."""

        def metric(suffix: str, **more: str) -> Any:
            family = self._family(f"{name}_{suffix}", description, pb_utils.MetricFamily.COUNTER)
            return family.Metric(labels=self._labels | labels | more)

        buckets = [metric("bucket", le=le) for le in (*(f"{bound:g}" for bound in bounds), "+Inf")]
        return self._add(Histogram(bounds, buckets, metric("sum"), metric("count"), self._lock))

    def gauge(self, name: str, description: str, value: float, **labels: str) -> None:
        """Makes a gauge whose value stays the same while the model is loaded."""
        metric = self._family(name, description, pb_utils.MetricFamily.GAUGE).Metric(labels=self._labels | labels)
        metric.set(value)
        self._gauges.append(metric)

    def reading(self, name: str, description: str, read: Callable[[], float], **labels: str) -> None:
        """Makes a gauge whose value `read` returns; it is called from another thread."""
        metric = self._family(name, description, pb_utils.MetricFamily.GAUGE).Metric(labels=self._labels | labels)
        self._add(Reading(metric, read))

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
            for metric, amounts in taken:
                metric.send(amounts)
