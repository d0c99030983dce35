"""The regression gate: compares some ratios on a small corpus with those in perf.json.

Absolute times differ between machines and minutes; a ratio of two alternatives that took turns hardly does. The gate is
a benchmark like any other, so that perf.json holds the ratios to expect.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

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
        benchmark: that measures it.
        key: of its headline there.
        higher_is_better: whether a lower ratio is a regression; otherwise a higher one is.
        tolerance: how much worse it may be, as a share of the expected ratio; a shared machine causes as much.
    """

    benchmark: Benchmark
    key: str
    higher_is_better: bool
    tolerance: float

    def limit(self, expected: float) -> float:
        """The worst ratio that passes."""
        return expected * (1 - self.tolerance if self.higher_is_better else 1 + self.tolerance)

    def is_worse(self, measured: float, expected: float) -> bool:
        """Whether `measured` is beyond the limit."""
        limit = self.limit(expected)
        return measured < limit if self.higher_is_better else measured > limit


GATED: tuple[Gated, ...] = (
    Gated(replace(served.BENCHMARK, run=served.run_by_bls), "served_over_scorer_p50", False, 0.5),
)
"""The ratios of `nann bench --check`. A new one is a line here; its benchmark must take seconds on a small corpus."""


@dataclass(frozen=True)
class Verdict:
    """The outcome for one ratio; `expected` is None if perf.json does not have it yet."""

    gated: Gated
    expected: float | None
    measured: float

    @property
    def regressed(self) -> bool:
        """Whether the ratio is beyond its limit."""
        return self.expected is not None and self.gated.is_worse(self.measured, self.expected)


def measure(cache: Path, window_s: float, say: Say) -> Json:
    """Measures every gated ratio on a corpus of `ITEMS` items: {key: ratio}."""
    corpus = table1_corpus(cache / "corpora", say, ITEMS, STEPS)
    small = BenchSettings(corpus, corpus, cache / NAME, REPEATS, USERS, window_s)
    headlines: dict[str, Json] = {}
    for benchmark in {gated.benchmark.name: gated.benchmark for gated in GATED}.values():
        headlines.update(benchmark.headline(benchmark.run(small, say)))
    return {gated.key: value_at(headlines, gated.key) for gated in GATED}


def verdicts(body: Json, measured: Json) -> list[Verdict]:
    """Compares the ratios measured now with the body of perf.json.

    Raises:
        ConfigError: if perf.json has no results of the gate.
    """
    try:
        expected = body["benchmarks"][NAME]["result"]
    except KeyError as error:
        raise ConfigError(
            f"perf.json has no results of the benchmark {NAME}; run `nann bench --only {NAME}`"
        ) from error
    return [Verdict(gated, expected.get(gated.key), measured[gated.key]) for gated in GATED]


def _run(settings: BenchSettings, say: Say) -> Json:
    return measure(settings.cache, settings.window_s, say)


def _markdown(result: Json) -> str:
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
        f"measures them again and fails if one is beyond its limit.\n\n{table(['ratio', 'measured', 'passes'], rows)}"
    )


BENCHMARK = Benchmark(NAME, "Regression gate", _run, _markdown)
