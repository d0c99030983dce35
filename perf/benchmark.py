"""What a benchmark is made of: one question about speed, answered by a ratio taken in one run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Json = Any
"""Whatever `json` writes."""
Say = Callable[[str], None]


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


def _nothing(result: Json) -> dict[str, Json]:
    return {}


@dataclass(frozen=True)
class Benchmark:
    """One benchmark: measuring, and pure functions of what was measured.

    Attributes:
        name: what `--only` takes.
        title: heading in the report.
        run: (settings, say) -> the result, JSON-able; times in ms, ratios as plain numbers.
        markdown: the result as text and tables, without the heading and the plots.
        plots: file name -> (result, path) writes that PNG.
        headline: result -> keys at the top of perf.json.
    """

    name: str
    title: str
    run: Callable[[BenchSettings, Say], Json]
    markdown: Callable[[Json], str]
    plots: Mapping[str, Callable[[Json, Path], None]] = field(default_factory=dict)
    headline: Callable[[Json], dict[str, Json]] = _nothing
