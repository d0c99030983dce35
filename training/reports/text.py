"""Numbers and tables in Markdown."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

MISSING = "–"  # noqa: RUF001  "not measured" in tables


def percent(value: float | None, places: int = 2) -> str:
    """0.1234 -> "12.34%"."""
    return MISSING if value is None else f"{100 * value:.{places}f}%"


def percent_spread(mean: float | None, spread: float | None) -> str:
    """Gives 12.34% ± 0.10, the spread in percentage points; no spread if there is one random seed."""
    return percent(mean) + ("" if mean is None or spread is None else f" ± {100 * spread:.2f}")


def mean(values: Iterable[float | None]) -> float | None:
    """Mean of the values that are not None; None if there are none."""
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None


def spread(values: Iterable[float | None]) -> float | None:
    """Sample standard deviation of the values that are not None; None if there are fewer than two."""
    known = [value for value in values if value is not None]
    return statistics.stdev(known) if len(known) > 1 else None


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; the first column is left-aligned, the others right-aligned."""
    lines = [header, ["---"] + ["---:"] * (len(header) - 1), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def listing(entries: Iterable[Mapping[str, Any]], columns: Mapping[str, str]) -> str:
    """A Markdown table with one row per entry; `columns`: header -> format of the cell, like "{coverage:.2%}"."""
    return table(list(columns), ([cell.format(**entry) for cell in columns.values()] for entry in entries))
