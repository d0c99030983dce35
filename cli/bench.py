"""`nann bench`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .support import JsonOption, as_typed, find_serving, make_table, output, print_json, say

if TYPE_CHECKING:
    from ..perf.benchmark import BenchSettings
    from ..perf.corpora.table1 import Corpus


def bench(
    only: Annotated[
        str | None, typer.Option(help='Benchmarks to measure again: "served,load". Default: all without a result yet.')
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder of the report, the plots and perf.json.")] = Path("docs/results"),
    cache: Annotated[Path, typer.Option(help="Folder for corpora, servers' files and results.")] = Path("build/bench"),
    real: Annotated[
        Path | None, typer.Option(help="Exported bundle of real data. Default: the demo's, made if it is missing.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Prepared data set of --real. Default: the demo's.", show_default=False)
    ] = None,
    table1_items: Annotated[
        int | None, typer.Option(min=1000, help="Items of the synthetic corpus. Default: Table 1's 1.3 million.")
    ] = None,
    users: Annotated[int, typer.Option(min=1, help="Test users, asked in turn.")] = 100,
    window_s: Annotated[float, typer.Option(min=0.5, help="Length of each of a load's three windows.")] = 5.0,
    repeats: Annotated[int, typer.Option(min=1, help="How often each alternative is timed; they take turns.")] = 7,
    before: Annotated[
        Path | None,
        typer.Option(
            help="Command `nann` of another installation, such as one of an earlier release, for --only before.",
            show_default=False,
        ),
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Only compare some ratios with those in --out; fails if one regressed.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Measure serving speed: starts Triton, loads it with perf_analyzer, writes a report with tables and plots.

    Results are kept: run the same command again to go on after an interruption. `--only` measures its benchmarks again
    and keeps the others. The first run makes a synthetic corpus of 1.3 million items and, if it is missing, the demo's
    bundle. perf_analyzer is downloaded if it is not on PATH.
    """
    find_serving()
    from ..perf.execute import run_benchmarks
    from ..perf.headlines import measured_headlines
    from ..perf.report import REPORT

    benchmarks = REPORT.chosen(only)
    if check:
        _check(out / REPORT.results_file, cache, window_s, json)
        return
    sizes = {"users": users, "window_s": window_s, "repeats": repeats}
    settings = _settings(cache, real, data, table1_items, before=before, **sizes)
    command = as_typed("nann bench", only=only, table1_items=table1_items, before=before, **sizes)
    body = run_benchmarks(benchmarks, settings, out, command=command, again=only is not None, say=say)
    output.print(make_table("serving speed", ("", "measured", "goal"), measured_headlines(body)))
    output.print(f"written to {out / REPORT.text_file} and {out / REPORT.results_file}")
    if json:
        print_json({**body, "benchmarks": list(body.get("benchmarks", {}))})


def _settings(cache: Path, real: Path | None, data: Path | None, items: int | None, **sizes: Any) -> BenchSettings:
    from nann.errors import ConfigError

    from ..perf.benchmark import BenchSettings
    from ..perf.corpora.table1 import TABLE1_ITEMS, Corpus, is_exported, table1_corpus
    from ..perf.load.perf_analyzer_install import find_perf_analyzer

    if (real is None) != (data is None):
        raise ConfigError("give both --real, a bundle, and --data, its prepared data set, or neither")
    if real is not None and not is_exported(real):
        raise ConfigError(f"{real} is no bundle with exported models; run `nann index` and `nann export`")
    find_perf_analyzer()  # fails before the minutes of making corpora, not after
    corpus = _demo_corpus() if real is None or data is None else Corpus(real, data)
    return BenchSettings(corpus, table1_corpus(cache / "corpora", say, items or TABLE1_ITEMS), cache, **sizes)


def _demo_corpus() -> Corpus:
    from ..perf.corpora.table1 import Corpus, is_exported
    from .demo import Demo

    demo = Demo(Path("build"))
    if not is_exported(demo.bundle):
        demo.build()
    return Corpus(demo.bundle, demo.data)


def _check(results: Path, cache: Path, window_s: float, json: bool) -> None:
    """Fails with exit code 1 if a ratio regressed."""
    from ..perf.benchmarks import gate
    from ..training.reports.store import read_object

    body = read_object(results)
    gate.verdicts(body, dict.fromkeys((gated.key for gated in gate.GATED), 0.0))  # fails if there is nothing to compare
    verdicts = gate.verdicts(body, gate.measure(cache, window_s, say))
    rows = [
        (
            one.gated.key,
            "-" if one.expected is None else f"{one.expected:.2f}",
            f"{one.measured:.2f}",
            f"{'-' if one.gated.higher_is_better else '+'}{one.gated.tolerance:.0%}",
            "[red]worse[/]" if one.regressed else "[green]ok[/]",
        )
        for one in verdicts
    ]
    output.print(make_table(f"against {results}", ("ratio", "expected", "measured", "allowed", ""), rows))
    if json:
        print_json({one.gated.key: {"expected": one.expected, "measured": one.measured} for one in verdicts})
    if any(one.regressed for one in verdicts):
        raise typer.Exit(1)
