"""A benchmark: one question about speed, answered by a ratio that is measured within one run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..training.reports.report import Part
from ..training.reports.runner import Say
from ..training.reports.store import Json
from .corpora.table1 import Corpus

__all__ = ["BenchSettings", "Benchmark", "Json", "Say"]


@dataclass(frozen=True)
class BenchSettings:
    """What all benchmarks depend on.

    Attributes:
        real: the corpus of real data.
        table1: 1.3 million synthetic items in three layers, as in the paper's Table 1.
        cache: where a benchmark keeps its files, in a folder of its own name.
        repeats: how often each alternative is timed; they take turns, so that a noisy minute affects all of them.
        users: test users, asked in turn.
        window_s: length of one of perf_analyzer's windows.
        before: the command `nann` of another installation, to compare with; None: there is none.
    """

    real: Corpus
    table1: Corpus
    cache: Path
    repeats: int = 7
    users: int = 100
    window_s: float = 5.0
    before: Path | None = None

    @property
    def corpora(self) -> dict[str, Corpus]:
        """Both, by name."""
        return {"real": self.real, "table1": self.table1}


@dataclass(frozen=True)
class Benchmark(Part[[BenchSettings, Say]]):
    """One benchmark: `run` takes the settings and a function for progress lines."""
