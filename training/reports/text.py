"""Numbers and tables in Markdown."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

MISSING = "–"  # noqa: RUF001  a dash is how a table says "not measured"


def percent(value: float | None, places: int = 2) -> str:
    """0.1234 -> "12.34%"."""
    return MISSING if value is None else f"{100 * value:.{places}f}%"


def percent_spread(mean: float | None, spread: float | None) -> str:
    """Gives 12.34% ± 0.10, the spread in percentage points; without it where there is one seed."""
    return percent(mean) + ("" if mean is None or spread is None else f" ± {100 * spread:.2f}")


def mean(values: Iterable[float | None]) -> float | None:
    """Mean of what is there; None if nothing is."""
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None


def spread(values: Iterable[float | None]) -> float | None:
    """Sample standard deviation of what is there; None with fewer than two values."""
    known = [value for value in values if value is not None]
    return statistics.stdev(known) if len(known) > 1 else None


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; the first column to the left, the others to the right."""
    lines = [header, ["---"] + ["---:"] * (len(header) - 1), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def listing(entries: Iterable[Mapping[str, Any]], columns: Mapping[str, str]) -> str:
    """A Markdown table with one row per entry.

    Args:
        entries: values by name.
        columns: header -> format of the cell, such as "{coverage:.2%}".
    """
    return table(list(columns), ([cell.format(**entry) for cell in columns.values()] for entry in entries))
