"""All benchmarks, in the order of the report. A new one is a `Benchmark` in a module of its own and a line here."""

from __future__ import annotations

from nann.errors import ConfigError
from perf import (
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
from perf.benchmark import Benchmark

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
    if only is None:
        return list(BENCHMARKS)
    wanted = [name.strip() for name in only.split(",")]
    known = [benchmark.name for benchmark in BENCHMARKS]
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise ConfigError(f'--only has "{unknown[0]}"; expected some of {", ".join(known)}')
    return [benchmark for benchmark in BENCHMARKS if benchmark.name in wanted]
