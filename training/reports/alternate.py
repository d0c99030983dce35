"""Times alternatives in turns, so that a noisy minute hits all of them alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Hashable, Mapping
from typing import TypeVar

import numpy as np

NameT = TypeVar("NameT", bound=Hashable)


def alternate(
    alternatives: Mapping[NameT, Callable[[], object]],
    repeats: int,
    prepare: Callable[[Callable[[], object]], object] = lambda alternative: None,
    clock: Callable[[], int] = time.perf_counter_ns,
) -> dict[NameT, float]:
    """Median wall time of each alternative in ms, by name.

    Each runs once untimed, then `repeats` times in turn. `prepare` gets the alternative before each run, untimed.
    The clock tells ns.
    """
    elapsed_ns: dict[NameT, list[int]] = {name: [] for name in alternatives}
    for alternative in alternatives.values():
        alternative()
    for _ in range(repeats):
        for name, alternative in alternatives.items():
            prepare(alternative)
            start = clock()
            alternative()
            elapsed_ns[name].append(clock() - start)
    return {name: statistics.median(values) / 1e6 for name, values in elapsed_ns.items()}


def warm(alternative: Callable[[], object]) -> None:
    """For `prepare`: caches hold what the alternative itself left there, not what the previous one did."""
    alternative()


def cold(alternative: Callable[[], object]) -> None:
    """For `prepare`: caches hold nothing that the alternative needs."""
    del alternative
    _OTHER_MEMORY[::_LINE] += 1


_LINE = 64
_OTHER_MEMORY = np.zeros(1 << 27, np.uint8)
"""More than a core's share of any last-level cache."""
