"""Reads a report's tables and plots as values, for comparison with the numbers in its result."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nann.training.reports.report import Report

from . import written

RESULTS = Path(__file__).parents[2] / "docs/results"
"""The committed reports."""


def committed(report: Report[Any]) -> Any:
    """The body of a committed JSON file; its Markdown is what the code writes from it."""
    body = json.loads((RESULTS / report.results_file).read_text(encoding="utf-8"))
    assert report.markdown(body) == (RESULTS / report.text_file).read_text(encoding="utf-8")
    return body


def tables(markdown: str) -> list[list[dict[str, str]]]:
    """Every Markdown table: one dict per row, header -> cell."""
    return [[dict(zip(header, row, strict=True)) for row in rows] for header, *rows in written.tables(markdown)]


def drawn(plot: Any, result: Any, path: Path) -> Figure:
    """The figure that a plot writes; its PNG is as large as the figure says."""
    figure = written.drawn(plot, result, path)
    header = path.read_bytes()[:24]
    width, height = (int.from_bytes(header[start : start + 4], "big") for start in (16, 20))
    assert (width, height) == tuple(round(150 * inches) for inches in figure.get_size_inches())
    return figure


def curve(axes: Axes, label: str) -> list[tuple[float, float]]:
    """The points of the one curve with this label."""
    (line,) = [line for line in axes.lines if line.get_label() == label]
    return [(float(x), float(y)) for x, y in zip(line.get_xdata(), line.get_ydata(), strict=True)]


def level(axes: Axes, label: str) -> float:
    """The height of the horizontal line with this label."""
    (line,) = [line for line in axes.lines if line.get_label() == label]
    (height,) = {float(y) for y in line.get_ydata()}
    return height
