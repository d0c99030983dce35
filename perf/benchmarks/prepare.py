"""How fast `nann prepare log` reads and prepares a log of 20 million rows, and how much memory it takes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from nann.errors import DataError

from ...training.data.synthetic import SyntheticSpec
from ...training.data.synthetic_files import row_count, write_synthetic_files
from ...training.reports.text import table
from ..benchmark import Benchmark, BenchSettings, Json, Say

NAME = "prepare"
ITEMS = 980_000
"""Of the synthetic log. It has about 20 rows an item, in proportions like UserBehavior."""

WORDS = {
    "parquet": "Parquet, whole numbers",
    "csv": "CSV, whole numbers",
    "text_csv": "CSV, text items (`B000000001`), times as text (`2017-11-25 00:00:00+00`)",
}


def measure(folder: Path, items: int, say: Say) -> Json:
    """Makes a synthetic log as files in a folder, where they stay, and prepares each as the command does."""
    folder.mkdir(parents=True, exist_ok=True)
    files = [_log_file(folder, name) for name in WORDS]
    if not files[-1].exists():
        say(f"{NAME}: making a log of {items:,} items")
        write_synthetic_files(SyntheticSpec(items=items), *files)
    rows = row_count(files[0])
    runs = {}
    for name in WORDS:
        say(f"{NAME}: {WORDS[name]}")
        path = _log_file(folder, name)
        seconds, peak_mb = _prepared(path, folder / "out")
        runs[name] = {"s": seconds, "rows_per_s": rows / seconds, "peak_mb": peak_mb, "mb": path.stat().st_size / 1e6}
    shutil.rmtree(folder / "out")
    return {"rows": rows, "items": items, "runs": runs}


def _log_file(folder: Path, name: str) -> Path:
    return folder / (f"{name}.csv" if name == "text_csv" else f"log.{name}")


def _prepared(path: Path, out: Path) -> tuple[float, float]:
    """Seconds and the largest resident memory, in MB, of the command that prepares a log.

    Raises:
        DataError: if it fails.
    """
    command = [str(Path(sys.executable).with_name("nann")), "prepare", "log", str(path), "--category", "category"]
    start_ns = time.perf_counter_ns()
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen([*command, "--out", str(out)], stdout=said, stderr=said)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            said.seek(0)
            raise DataError(f"`nann prepare log {path}` failed: {said.read().strip()}")
    return (time.perf_counter_ns() - start_ns) / 1e9, usage.ru_maxrss * 1024 / 1e6


def _run(settings: BenchSettings, say: Say) -> Json:
    return measure(settings.cache / NAME, ITEMS, say)


def _markdown(result: Json) -> str:
    rows = [
        [
            WORDS[name],
            f"{one['mb']:,.0f}",
            f"{one['s']:.1f}",
            f"{one['rows_per_s'] / 1e6:.2f}",
            f"{one['peak_mb']:,.0f}",
        ]
        for name, one in result["runs"].items()
    ]
    return (
        f"`nann prepare log` with a synthetic log of {result['rows']:,} rows and {result['items']:,} items, from the "
        f"start of the command to its end:\n\n{table(['log', 'MB', 's', 'million rows/s', 'peak memory MB'], rows)}"
    )


BENCHMARK = Benchmark(NAME, "Preparing a log", _run, _markdown)
