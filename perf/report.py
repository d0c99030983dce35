"""All benchmarks, and the text around them in their report: headline figures first."""

from __future__ import annotations

from ..training.reports.report import Report
from ..training.reports.text import table
from .benchmark import Benchmark, Json
from .benchmarks import (
    before,
    by_user,
    cascade,
    catalog,
    filters,
    gate,
    growth,
    index_load,
    instances,
    lockstep,
    marking,
    prepare,
    refresh,
    retrieval,
    served,
    start,
)
from .benchmarks import load as latency_curve
from .benchmarks import scorer as scorer_bench
from .headlines import measured_headlines

BENCHMARKS: tuple[Benchmark, ...] = (
    scorer_bench.BENCHMARK,
    marking.BENCHMARK,
    lockstep.BENCHMARK,
    retrieval.BENCHMARK,
    cascade.BENCHMARK,
    served.BENCHMARK,
    by_user.BENCHMARK,
    latency_curve.BENCHMARK,
    filters.BENCHMARK,
    catalog.BENCHMARK,
    instances.BENCHMARK,
    index_load.BENCHMARK,
    start.BENCHMARK,
    growth.BENCHMARK,
    prepare.BENCHMARK,
    refresh.BENCHMARK,
    before.BENCHMARK,
    gate.BENCHMARK,
)
"""In the order of the report. A new one is a `Benchmark` in a module of its own and a line here."""

_INTRODUCTION = """# Serving speed

Written by `nann bench`, with all numbers in [perf.json](perf.json). There are two corpora. Complete Journey is a year
of grocery baskets, simulated from real shopping patterns. The other is synthetic, in the setting of the
[paper](https://arxiv.org/abs/2202.10226)'s Table 1: three layers, ef {200, 500, 1000}, rounds {1, 1, 2} and the paper's
network, trained briefly so that its scores have a structure. Requests are histories of test users, sent by Triton's
perf_analyzer. Times are noisy on a machine that does other work too: alternatives take turns within one run and are
compared as ratios. Coverage is the share of the exhaustive top list that the search finds. Recall is the share of what
the user did next that the search finds. Both are measured on the search that was timed.
"""


def _introduction(body: Json) -> str:
    return f"{_INTRODUCTION}\n{table(['', 'measured', 'goal'], measured_headlines(body))}\n"


def _details(made: Json) -> list[str]:
    settings = made["settings"]
    return [
        ", ".join(f"{name} {corpus['items']:,} items ({corpus['id']})" for name, corpus in made["corpora"].items()),
        f"{settings['users']} test users, windows of {settings['window_s']:g} s, {settings['repeats']} repeats",
    ]


REPORT = Report(
    "perf.json",
    "perf.md",
    BENCHMARKS,
    word="benchmark",
    introduction=_introduction,
    section="benchmarks",
    details=_details,
    repeated=("machine", "date"),
    command="nann bench",
)
