"""`nann bench`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from .support import JsonOption, as_typed, find_serving, output, print_json, say

if TYPE_CHECKING:
    from ..perf.benchmark import BenchSettings

DEMO_FOLDER = Path("build")


def bench(
    only: Annotated[
        str | None, typer.Option(help='Measure these again: "served,load". Default: all that was not measured yet.')
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder of the report, the plots and perf.json.")] = Path("docs/results"),
    cache: Annotated[Path, typer.Option(help="Where corpora, servers' files and results are kept.")] = Path(
        "build/bench"
    ),
    real: Annotated[
        Path | None, typer.Option(help="Exported bundle of real data. Default: the demo's, made if it is not there.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="The prepared data set of --real. Default: the demo's.", show_default=False)
    ] = None,
    table1_items: Annotated[
        int | None, typer.Option(min=1000, help="Items of the synthetic corpus. Default: Table 1's 1.3 million.")
    ] = None,
    users: Annotated[int, typer.Option(min=1, help="Test users, asked in turn.")] = 100,
    window_s: Annotated[float, typer.Option(min=0.5, help="Length of perf_analyzer's windows; three a load.")] = 5.0,
    repeats: Annotated[int, typer.Option(min=1, help="How often alternatives take turns.")] = 7,
    check: Annotated[
        bool, typer.Option("--check", help="Only compare some ratios with those in --out: fails if one regressed.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Measure serving speed: starts Triton, drives it with perf_analyzer, writes a report with tables and plots.

    Results are kept: run the same command again to go on after an interruption; --only measures its benchmarks again
    and keeps the others. The first run makes a synthetic corpus of 1.3 million items and, if there is none, the
    demo's bundle; perf_analyzer is downloaded where it is not on PATH.
    """
    find_serving()
    from ..perf.execute import run_benchmarks
    from ..perf.report import REPORT

    benchmarks = REPORT.chosen(only)
    if check:
        _check(out / REPORT.results_file, cache, window_s, json)
        return
    settings = _settings(cache, real, data, table1_items, users=users, window_s=window_s, repeats=repeats)
    command = as_typed(
        "nann bench", only=only, table1_items=table1_items, users=users, window_s=window_s, repeats=repeats
    )
    body = run_benchmarks(benchmarks, settings, out, command=command, again=only is not None, say=say)
    _print_headlines(body)
    output.print(f"written to {out / REPORT.text_file} and {out / REPORT.results_file}")
    if json:
        print_json({**body, "benchmarks": list(body.get("benchmarks", {}))})


def _settings(cache: Path, real: Path | None, data: Path | None, items: int | None, **sizes: Any) -> BenchSettings:
    from nann.errors import ConfigError

    from ..perf.benchmark import BenchSettings
    from ..perf.corpora.table1 import TABLE1_ITEMS, is_exported, table1_corpus
    from ..perf.load.perf_analyzer_install import find_perf_analyzer

    if (real is None) != (data is None):
        raise ConfigError("--real and --data belong together: a bundle and the prepared data set it is of; give both")
    if real is not None and not is_exported(real):
        raise ConfigError(f"{real} is no bundle with exported models; run `nann index` and `nann export`")
    find_perf_analyzer()  # what is missing is said before the minutes of making corpora, not after
    if real is None or data is None:
        real, data = _demo_bundle()
    table1 = table1_corpus(cache / "corpora", say, items or TABLE1_ITEMS)
    return BenchSettings(real, data, table1.bundle, table1.data, cache, **sizes)


def _demo_bundle() -> tuple[Path, Path]:
    from ..perf.corpora.table1 import is_exported
    from .demo import build_demo

    bundle, data = DEMO_FOLDER / "bundle", DEMO_FOLDER / "data/complete_journey"
    if not is_exported(bundle):
        build_demo(DEMO_FOLDER)
    return bundle, data


def _check(results: Path, cache: Path, window_s: float, json: bool) -> None:
    """Fails with exit code 1 if a ratio regressed."""
    from ..perf.benchmark import BenchSettings
    from ..perf.benchmarks import gate
    from ..training.reports.store import read_object

    body = read_object(results)
    gate.verdicts(body, dict.fromkeys((gated.key for gated in gate.GATED), 0.0))  # is there anything to compare with?
    nowhere = Path()
    settings = BenchSettings(nowhere, nowhere, nowhere, nowhere, cache, window_s=window_s)
    verdicts = gate.verdicts(body, gate.run(settings, say))
    table = Table(title=f"against {results}")
    table.add_column("ratio")
    for column in ("expected", "measured", "allowed", ""):
        table.add_column(column, justify="right")
    for one in verdicts:
        sign = "-" if one.gated.higher_is_better else "+"
        expected = "-" if one.expected is None else f"{one.expected:.2f}"
        words = "[red]worse[/]" if one.regressed else "[green]ok[/]"
        table.add_row(one.gated.key, expected, f"{one.measured:.2f}", f"{sign}{one.gated.tolerance:.0%}", words)
    output.print(table)
    if json:
        print_json({one.gated.key: {"expected": one.expected, "measured": one.measured} for one in verdicts})
    if any(one.regressed for one in verdicts):
        raise typer.Exit(1)


def _print_headlines(body: dict[str, Any]) -> None:
    from ..perf.headlines import measured_headlines

    table = Table(title="serving speed")
    table.add_column("")
    table.add_column("measured", justify="right", style="bold")
    table.add_column("goal", justify="right")
    for row in measured_headlines(body):
        table.add_row(*row)
    output.print(table)
