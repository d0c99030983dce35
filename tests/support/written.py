"""Reads cells of a report's tables, and the content of its plots."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure


def tables(markdown: str) -> list[list[list[str]]]:
    """Cells of each table, row by row, the heading first and the line under it left out."""
    found: list[list[list[str]]] = []
    inside = False
    for line in markdown.splitlines():
        if line.startswith("|") and not inside:
            found.append([])
        inside = line.startswith("|")
        if inside and set(line) - set("|-: "):
            found[-1].append([cell.strip() for cell in line.strip("|").split("|")])
    assert all(len(row) == len(table[0]) for table in found for row in table), "rows of different lengths"
    return found


@contextlib.contextmanager
def saved_figures() -> Iterator[dict[Path, Figure]]:
    """Collects the figures that are saved within the context, by file."""
    saved: dict[Path, Figure] = {}
    save = Figure.savefig

    def save_and_keep(figure: Figure, path: Path, **options: Any) -> None:
        save(figure, path, **options)
        saved[path] = figure

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", save_and_keep)
        yield saved


def drawn(plot: Callable[[Any, Path], object], result: Any, path: Path) -> Figure:
    """Lets `plot` save a picture of the result to `path`, and returns the figure."""
    with saved_figures() as figures:
        plot(result, path)
    assert path.read_bytes().startswith(b"\x89PNG")
    return figures[path]


def lines(figure: Figure, panel: int = 0) -> list[list[tuple[float, float]]]:
    """Points of each line of a panel, in the order in which the lines were drawn."""
    return [[(float(x), float(y)) for x, y in line.get_xydata()] for line in figure.axes[panel].lines]
