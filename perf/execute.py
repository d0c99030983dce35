"""Runs benchmarks and writes what they found: perf.json, plots, the Markdown report."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from importlib.metadata import distributions
from pathlib import Path

from nann.bundle import Bundle
from nann.durable_files import write_json
from nann.errors import ConfigError

from ..training.reports.machine import machine
from ..training.reports.store import cached, read_object
from ..training.studies.plotting import require_matplotlib
from .benchmark import Benchmark, BenchSettings, Json, Say
from .headlines import nested
from .report import report

RESULTS_FILE = "perf.json"
REPORT_FILE = "perf.md"
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
    """Runs benchmarks; what was measured before on this machine with these settings is read.

    All is written after each, so that an interrupted command goes on where it stopped.

    Args:
        benchmarks: in the order of the report.
        settings: of the benchmarks.
        out: folder of the results. Other benchmarks' results in its perf.json stay, with their own date.
        command: as typed, for the results' provenance.
        again: measure even what was measured before; then one that can't be run here is an error, else it is left out.
        say: takes progress lines.

    Returns:
        The body of perf.json.

    Raises:
        ConfigError: if matplotlib is missing, or perf.json is another program's.
    """
    require_matplotlib()
    body = read_object(out / RESULTS_FILE)
    out.mkdir(parents=True, exist_ok=True)
    for number, benchmark in enumerate(benchmarks, start=1):
        say(f"benchmark {number} of {len(benchmarks)}: {benchmark.title}")
        try:
            stored = _result(benchmark, settings, command, again, say)
        except ConfigError as error:
            if again:
                raise
            say(f"left out: {error}")
            continue
        body.update(nested(benchmark.headline(stored["result"])))
        body["machine"], body["date"] = (stored["provenance"][key] for key in ("machine", "date"))
        body["benchmarks"] = {**body.get("benchmarks", {}), benchmark.name: stored}
        for name, plot in benchmark.plots.items():
            plot(stored["result"], out / name)
        write_json(out / RESULTS_FILE, body)
        write_report(body, out)
    return body


def write_report(body: Json, out: Path) -> None:
    """Writes the Markdown report of a perf.json."""
    (out / REPORT_FILE).write_text(report(body), encoding="utf-8")


def _result(benchmark: Benchmark, settings: BenchSettings, command: str, again: bool, say: Say) -> Json:
    """`{provenance, result}`: measured, or as it was when it was measured."""
    corpora = {name: Bundle.open(path, files=[]) for name, path in _bundles(settings).items()}
    sizes = {key: value for key, value in asdict(settings).items() if not isinstance(value, Path)}
    inputs = {
        "benchmark": benchmark.name,
        "corpora": {name: bundle.bundle_id for name, bundle in corpora.items()},
        "settings": sizes,
        "machine": machine(),
    }

    def compute() -> Json:
        started = datetime.now(timezone.utc)
        result = benchmark.run(settings, say)
        seconds = (datetime.now(timezone.utc) - started).total_seconds()
        made = {
            "command": command,
            "settings": sizes,
            "corpora": {name: {"id": one.bundle_id, "items": one.item_count} for name, one in corpora.items()},
            "machine": machine(),
            "versions": {"python": platform.python_version(), **_versions()},
            "date": started.date().isoformat(),
            "took_s": round(seconds),
        }
        return {"provenance": made, "result": result}

    return cached(settings.cache / CACHE_FOLDER, inputs, compute, again=again)


def _bundles(settings: BenchSettings) -> dict[str, Path]:
    return {"real": settings.real, "table1": settings.table1}


def _versions() -> dict[str, str]:
    """Of what is installed; Triton may be a container's."""
    installed = {each.metadata["Name"]: each.version for each in distributions()}
    return {name: installed[name] for name in _PACKAGES if name in installed}
