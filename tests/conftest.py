"""For all tests: threads, and what is said of tests that were skipped."""

from __future__ import annotations

import os

# Read when torch is imported. Its tensors here have a few kilobytes: threads would only wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from support.skipped import pytest_sessionfinish, pytest_terminal_summary  # noqa: F401
