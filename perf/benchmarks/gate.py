"""The regression gate: some ratios on a small corpus, against those that were measured when the report was made.

Absolute times differ between machines and minutes; a ratio of two things that took turns hardly does. The gate's
own figures are a benchmark as any other, so perf.json says what to expect.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from nann.errors import ConfigError

from ...training.reports.text import table
from ..benchmark import Benchmark, BenchSettings, Json, Say
from ..corpora.table1 import table1_corpus
from ..headlines import value_at
from . import served

NAME = "gate"
ITEMS, STEPS, REPEATS, USERS = 20_000, 20, 5, 32


@dataclass(frozen=True)
class Gated:
    """One ratio.

    Attributes:
        benchmark: gives it.
        key: its headline key there.
        higher_is_better: which way a regression goes.
        tolerance: how much worse it may be, as a share of what is expected: what a shared machine does to it.
    """

    benchmark: Benchmark
    key: str
    higher_is_better: bool
    tolerance: float

    def limit(self, expected: float) -> float:
        """The worst that passes."""
        return expected * (1 - self.tolerance if self.higher_is_better else 1 + self.tolerance)

    def is_worse(self, measured: float, expected: float) -> bool:
        """Whether `measured` is beyond what `expected` and the tolerance allow."""
        limit = self.limit(expected)
        return measured < limit if self.higher_is_better else measured > limit


GATED: tuple[Gated, ...] = (
    Gated(replace(served.BENCHMARK, run=served.run_by_bls), "served_over_scorer_p50", False, 0.5),
)
"""What `nann bench --check` looks at. A new one is a line here; its benchmark must take seconds on a small corpus."""


@dataclass(frozen=True)
class Verdict:
    """What came of one ratio; `expected` is None where perf.json has none yet."""

    gated: Gated
    expected: float | None
    measured: float

    @property
    def regressed(self) -> bool:
        """Whether it is worse than it may be."""
        return self.expected is not None and self.gated.is_worse(self.measured, self.expected)


def run(settings: BenchSettings, say: Say) -> Json:
    """Measures every gated ratio on a corpus of `ITEMS` items: {key: ratio}."""
    corpus = table1_corpus(settings.cache / "corpora", say, ITEMS, STEPS)
    small = replace(
        settings,
        real=corpus.bundle,
        real_data=corpus.data,
        table1=corpus.bundle,
        table1_data=corpus.data,
        cache=settings.cache / NAME,
        repeats=REPEATS,
        users=USERS,
    )
    headlines: dict[str, Json] = {}
    for benchmark in {gated.benchmark.name: gated.benchmark for gated in GATED}.values():
        headlines.update(benchmark.headline(benchmark.run(small, say)))
    return {gated.key: value_at(headlines, gated.key) for gated in GATED}


def verdicts(body: Json, measured: Json) -> list[Verdict]:
    """Compares what was measured now with the body of perf.json.

    Raises:
        ConfigError: if perf.json has no figures of the gate.
    """
    try:
        expected = body["benchmarks"][NAME]["result"]
    except KeyError as error:
        raise ConfigError(
            f"perf.json has no results of the benchmark {NAME}; run `nann bench --only {NAME}`"
        ) from error
    return [Verdict(gated, expected.get(gated.key), measured[gated.key]) for gated in GATED]


def markdown(result: Json) -> str:
    """What the gate expects."""
    rows = [
        [
            f"`{gated.key}`",
            f"{result[gated.key]:.2f}",
            f"{'down' if gated.higher_is_better else 'up'} to {gated.limit(result[gated.key]):.2f}",
        ]
        for gated in GATED
        if gated.key in result
    ]
    return (
        f"The same ratios on a synthetic corpus of {ITEMS:,} items, where fixed costs weigh more. `make bench-check` "
        f"measures them again and fails beyond the tolerance.\n\n{table(['ratio', 'measured', 'passes'], rows)}"
    )


BENCHMARK = Benchmark(NAME, "Regression gate", run, markdown)
