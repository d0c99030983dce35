"""All benchmarks, in the order of the report. A new one is a `Benchmark` in a module of its own and a line here."""

from __future__ import annotations

from ..training.studies.choose import chosen
from . import (
    gate,
    growth,
    index_load,
    instances,
    latency_curve,
    lockstep,
    marking,
    retrieval,
    scorer_bench,
    served,
    start,
)
from .benchmark import Benchmark

BENCHMARKS: tuple[Benchmark, ...] = (
    scorer_bench.BENCHMARK,
    marking.BENCHMARK,
    lockstep.BENCHMARK,
    retrieval.BENCHMARK,
    served.BENCHMARK,
    latency_curve.BENCHMARK,
    instances.BENCHMARK,
    index_load.BENCHMARK,
    start.BENCHMARK,
    growth.BENCHMARK,
    gate.BENCHMARK,
)


def choose_benchmarks(only: str | None) -> list[Benchmark]:
    """The benchmarks named in "served,load"; None = all.

    Raises:
        ConfigError: if one of the names is none.
    """
    return chosen(only, BENCHMARKS)
