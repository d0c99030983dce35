"""The look of all plots: matplotlib without a display, colours that colour-blind readers can distinguish."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's palette."""
BLUE, RED, GREEN, PURPLE, ORANGE = COLORS[:5]
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
GREY = "#888888"


@contextmanager
def figure(
    path: Path, title: str = "", panels: int = 1, size: tuple[float, float] | None = None
) -> Iterator[list[Any]]:
    """`panels` axes side by side, below the title; the figure is written to `path` (PNG) at the end.

    `size` is that of each panel in inches. Default: 6.4 x 4.4; with a title all panels share 8 x 4.8, 1200 pixels wide.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    width, height = size or ((8.0 / panels, 4.8) if title else (6.4, 4.4))
    drawing = Figure(figsize=(width * panels, height), layout="constrained")
    FigureCanvasAgg(drawing)
    axes = list(drawing.subplots(1, panels, squeeze=False)[0])
    if title:
        drawing.suptitle(title)
    yield axes
    for one in axes:
        one.grid(True, color="#dddddd", linewidth=0.6)
        one.set_axisbelow(True)
    path.parent.mkdir(parents=True, exist_ok=True)
    drawing.savefig(path, dpi=150)


def plain_log(axes: Any, *names: str) -> None:
    """Makes the named axes ("x", "y") logarithmic, with plain numbers as labels: 1, 2, 5, 10, ..."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    for name in names:
        getattr(axes, f"set_{name}scale")("log")
        axis = getattr(axes, f"{name}axis")
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter(FuncFormatter(lambda value, place: f"{value:,.12g}"))
        axis.set_minor_formatter(NullFormatter())


def percent_axis(axis: Any, label: str) -> None:
    """Labels an axis whose values are percentages (`axes.xaxis` or `axes.yaxis`)."""
    from matplotlib.ticker import FuncFormatter, NullFormatter

    axis.set_label_text(f"{label} [%]")
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def line(axes: Any, x: Sequence[float], y: Sequence[float], label: str, color: str) -> None:
    """A line through points, with the marker of its colour."""
    marker = MARKERS[COLORS.index(color)]
    axes.plot(x, y, color=color, marker=marker, markersize=5, linewidth=1.8, label=label)
