"""Times alternatives in turns, so that a noisy minute hits all of them alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping


def alternate(alternatives: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median wall time of each alternative in ms; each runs once before the clock, then `repeats` times in turn."""
    elapsed_ns: dict[str, list[int]] = {name: [] for name in alternatives}
    for alternative in alternatives.values():
        alternative()
    for _ in range(repeats):
        for name, alternative in alternatives.items():
            start = time.perf_counter_ns()
            alternative()
            elapsed_ns[name].append(time.perf_counter_ns() - start)
    return {name: statistics.median(values) / 1e6 for name, values in elapsed_ns.items()}
