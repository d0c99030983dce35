"""Runs the parts of a report, keeps each result on disk, and writes JSON, Markdown and plots."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Generic

from nann.errors import ConfigError
from nann.packages import find_package

from .report import PartT, Report
from .store import Json, cached, read_object

Say = Callable[[str], None]


@dataclass(frozen=True)
class Measuring(Generic[PartT]):
    """How the parts of one command are measured.

    Attributes:
        run: part -> its result.
        inputs: part -> everything that its result depends on.
        cache: folder of results, stored by their inputs.
        again: measure again even if a result is stored.
        provenance: stored with each result, together with the date and the seconds it took.
        about: further keys of each entry, also given to `Part.headline`.
    """

    run: Callable[[PartT], Json]
    inputs: Callable[[PartT], Json]
    cache: Path
    again: bool = False
    provenance: Mapping[str, Json] = field(default_factory=dict)
    about: Mapping[str, Json] = field(default_factory=dict)

    def entry(self, part: PartT) -> Json:
        """`{provenance, result}` and `about`; measured now, or stored earlier."""

        def compute() -> Json:
            date, start_s = datetime.now(timezone.utc).date().isoformat(), time.monotonic()
            result = self.run(part)
            took_s = round(time.monotonic() - start_s)
            return {"provenance": {**self.provenance, "date": date, "took_s": took_s}, "result": result}

        return {**self.about, **cached(self.cache, self.inputs(part), compute, again=self.again)}


def run_parts(
    report: Report[PartT],
    parts: Sequence[PartT],
    out: Path,
    measuring: Measuring[PartT],
    *,
    body: Json = None,
    left_out: Callable[[PartT, ConfigError], object] | None = None,
    say: Say = lambda line: None,
) -> Json:
    """Runs parts of a report; writes all files in `out` after each, so that an interrupted command can continue.

    Args:
        report: the kind of report.
        parts: those to run.
        out: folder of the results.
        measuring: how a part is measured.
        body: initial body of the JSON file; None = that of the file in `out`, which keeps other parts' results.
        left_out: called with a part that can't be measured here, and the reason; None = raise it.
        say: prints progress lines.

    Returns:
        The body of the JSON file.

    Raises:
        ConfigError: if the JSON file does not hold a report.
        ModuleNotFoundError: if matplotlib is not installed.
    """
    if any(part.plots for part in parts):
        find_package("matplotlib")  # fails before hours of measuring, not after
    if body is None:
        body = read_object(out / report.results_file)
    out.mkdir(parents=True, exist_ok=True)
    for number, part in enumerate(parts, start=1):
        say(f"{report.word} {number} of {len(parts)}: {part.title}")
        try:
            entry = measuring.entry(part)
        except ConfigError as error:
            if left_out is None:
                raise
            left_out(part, error)
        else:
            report.add(body, part, entry, measuring.about)
            for name, plot in part.plots.items():
                plot(entry["result"], out / name)
        report.write(body, out)
    return body
