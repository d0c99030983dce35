"""All benchmarks, in the order of the report. A new one is a `Benchmark` in a module of its own and a line here."""

from __future__ import annotations

from ..training.reports.choose import chosen
from .benchmark import Benchmark
from .benchmarks import gate, growth, index_load, instances, lockstep, marking, retrieval, served, start
from .benchmarks import load as latency_curve
from .benchmarks import scorer as scorer_bench

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
