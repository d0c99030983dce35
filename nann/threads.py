"""How many threads a computation may take."""

from __future__ import annotations

import os


def fitting_threads(wanted: int) -> int:
    """`wanted` threads, at least one and at most one for each core that this process may use."""
    return min(wanted, core_count()) if wanted > 1 else 1  # the system is asked only where it matters


def core_count() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):  # Linux: containers and taskset leave fewer than the machine has
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
