"""For all tests: threads, hypothesis, names of parameters, and what is said of tests that were skipped."""

from __future__ import annotations

import os

# Read when torch is imported. Its tensors here have a few kilobytes: threads would only wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from hypothesis import HealthCheck, settings
from support.skipped import pytest_sessionfinish, pytest_terminal_summary  # noqa: F401

# How long an example takes says how loaded the machine is.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Bytes are named by their argument: pytest would print them, and a packed file holds the second it was made in.

    Workers that collect different names refuse to run.
    """
    return argname if isinstance(val, bytes) else None
