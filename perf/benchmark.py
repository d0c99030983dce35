"""What a benchmark is made of: one question about speed, answered by a ratio taken in one run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..training.reports.report import Part
from ..training.reports.runner import Say
from ..training.reports.store import Json

__all__ = ["BenchSettings", "Benchmark", "Json", "Say"]


@dataclass(frozen=True)
class BenchSettings:
    """What all benchmarks depend on.

    Attributes:
        real: bundle of the real data set, exported.
        real_data: the prepared data set it is of.
        table1: bundle in the setting of the paper's Table 1: 1.3 million synthetic items, three layers.
        table1_data: the prepared data set it is of.
        cache: where a benchmark may keep what it makes, in a folder of its own name.
        repeats: how often each alternative is timed; they take turns, so that a noisy minute hits all of them.
        users: test users, asked in turn.
        window_s: length of one of perf_analyzer's windows.
        perf_analyzer: folder it is unpacked into where it is not on PATH.
    """

    real: Path
    real_data: Path
    table1: Path
    table1_data: Path
    cache: Path
    repeats: int = 7
    users: int = 100
    window_s: float = 5.0
    perf_analyzer: Path = Path("build/perf_analyzer")


@dataclass(frozen=True)
class Benchmark(Part[[BenchSettings, Say]]):
    """One benchmark: `run` takes the settings and what takes progress lines; `headline` takes the result."""
