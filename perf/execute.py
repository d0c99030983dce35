"""Runs benchmarks and writes perf.json, plots and the Markdown report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nann.bundle import Bundle

from ..training.reports.machine import machine, provenance
from ..training.reports.runner import Measuring, run_parts
from .benchmark import Benchmark, BenchSettings, Json, Say
from .report import REPORT

CACHE_FOLDER = "results"
_PACKAGES = ("nann", "numpy", "onnxruntime", "nvidia-pytriton", "tritonclient")


def run_benchmarks(
    benchmarks: Sequence[Benchmark],
    settings: BenchSettings,
    out: Path,
    *,
    command: str,
    again: bool = False,
    say: Say = lambda line: None,
) -> Json:
    """Runs benchmarks by `run_parts`; a result of this machine with the same settings is read from the cache.

    Args:
        benchmarks: in the order of the report.
        settings: of the benchmarks.
        out: folder of the results. Other benchmarks' results in its perf.json stay, with their own date.
        command: as typed, for the results' provenance.
        again: ignore the cache. A benchmark that can't run here is then an error; otherwise it is left out.
        say: takes progress lines.
    """
    corpora = {name: Bundle.open(corpus.bundle, files=[]) for name, corpus in settings.corpora.items()}
    sizes = {name: getattr(settings, name) for name in ("repeats", "users", "window_s")}

    def inputs(benchmark: Benchmark) -> Json:
        ids = {name: bundle.bundle_id for name, bundle in corpora.items()}
        return {"benchmark": benchmark.name, "corpora": ids, "settings": sizes, "machine": machine()}

    about = {name: {"id": one.bundle_id, "items": one.item_count} for name, one in corpora.items()}
    measuring = Measuring[Benchmark](
        lambda benchmark: benchmark.run(settings, say),
        inputs,
        settings.cache / CACHE_FOLDER,
        again=again,
        provenance=provenance(command, _PACKAGES, settings=sizes, corpora=about),
    )
    return run_parts(
        REPORT,
        benchmarks,
        out,
        measuring,
        left_out=None if again else lambda _, error: say(f"left out: {error}"),
        say=say,
    )
