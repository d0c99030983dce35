"""A server's metrics as a few series: requests, latency, kinds of answers, live coverage."""

from __future__ import annotations

import math
import re
from collections import deque
from collections.abc import Mapping
from typing import Any

Samples = Mapping[tuple[str, str], float]
"""(metric, value of its own label) -> value, summed over all other labels."""

_LINE = re.compile(r"^(nann_\w+)(?:\{(.*)\})?\s+(\S+)$", re.MULTILINE)
_LABELS = ("outcome", "le", "stage")
_KEPT_POINTS = 150
_DURATION, _STAGE = "nann_request_duration_seconds", "nann_stage_duration_seconds"


def read_samples(text: str) -> Samples:
    """The product's own metrics in Prometheus' text."""
    found: dict[tuple[str, str], float] = {}
    for name, labels, value in _LINE.findall(text):
        given = dict(re.findall(r'(\w+)="([^"]*)"', labels))
        key = (name, next((given[label] for label in _LABELS if label in given), ""))
        found[key] = found.get(key, 0.0) + float(value)
    return found


class HealthLog:
    """The last points, five minutes at one every two seconds."""

    def __init__(self) -> None:
        self.points: deque[dict[str, Any]] = deque(maxlen=_KEPT_POINTS)
        self._before: tuple[float, Samples] | None = None

    def add(self, time_s: float, samples: Samples) -> None:
        """Adds what happened since the reading before; the first reading, or one after a restart, only begins."""
        if self._before is not None and time_s > self._before[0]:
            grown = {key: value - self._before[1].get(key, 0.0) for key, value in samples.items()}
            if not _restarted(grown):
                self.points.append(_point(time_s, time_s - self._before[0], grown))
        self._before = (time_s, samples)

    def to_json(self) -> dict[str, Any]:
        """As the page reads it: the points, and the counts since the server's start."""
        totals = {} if self._before is None else _of(self._before[1], "nann_requests_total")
        return {"points": list(self.points), "totals": {kind: int(count) for kind, count in totals.items()}}


def _restarted(grown: Samples) -> bool:
    """Whether a counter went down."""
    return any(change < 0 for (name, _), change in grown.items() if name.endswith("_total"))


def _point(time_s: float, passed_s: float, grown: Samples) -> dict[str, Any]:
    outcomes = _of(grown, "nann_requests_total")
    wanted = grown.get(("nann_quality_items_wanted_total", ""), 0.0)
    found = grown.get(("nann_quality_items_found_total", ""), 0.0)
    buckets = {float(le): count for le, count in _of(grown, f"{_DURATION}_bucket").items()}
    counts, sums = _of(grown, f"{_STAGE}_count"), _of(grown, f"{_STAGE}_sum")
    stages = {stage: 1e3 * sums[stage] / count for stage, count in counts.items() if count > 0}
    return {
        "time_s": time_s,
        "requests_per_s": sum(outcomes.values()) / passed_s,
        "outcomes": {kind: int(count) for kind, count in outcomes.items() if count},
        "p50_ms": _ms(quantile(buckets, 0.5)),
        "p99_ms": _ms(quantile(buckets, 0.99)),
        "stages_ms": stages,
        "coverage": found / wanted if wanted else None,
    }


def _of(samples: Samples, metric: str) -> dict[str, float]:
    return {label: value for (name, label), value in samples.items() if name == metric}


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else 1e3 * seconds


def quantile(buckets: Mapping[float, float], share: float) -> float | None:
    """A quantile of a cumulative histogram, linear within a bucket, as Prometheus has it; None: it is empty.

    Args:
        buckets: count by upper bound, the last one infinity.
        share: from 0 to 1.
    """
    bounds = sorted(buckets)
    total = buckets[bounds[-1]] if bounds else 0.0
    if total <= 0:
        return None
    low, below = 0.0, 0.0
    for bound in bounds:
        if buckets[bound] >= share * total:
            if math.isinf(bound):
                return low
            return low + (bound - low) * (share * total - below) / max(buckets[bound] - below, 1e-12)
        low, below = bound, buckets[bound]
    return low
