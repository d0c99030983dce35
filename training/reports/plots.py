"""How every plot looks: matplotlib without a display, colours that colour-blind readers can tell apart."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's palette."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
GREY = "#888888"


@contextmanager
def figure(path: Path, panels: int = 1, size: tuple[float, float] = (6.4, 4.4)) -> Iterator[list[Any]]:
    """Axes side by side, `panels` of them, each `size` inches; written to `path` (PNG) at the end."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    drawing = Figure(figsize=(size[0] * panels, size[1]), layout="constrained")
    FigureCanvasAgg(drawing)
    axes = list(drawing.subplots(1, panels, squeeze=False)[0])
    yield axes
    for one in axes:
        one.grid(True, color="#dddddd", linewidth=0.6)
        one.set_axisbelow(True)
    path.parent.mkdir(parents=True, exist_ok=True)
    drawing.savefig(path, dpi=150)


def plain_log(axes: Any, *names: str) -> None:
    """Makes the axes named ("x", "y") logarithmic, with numbers as people write them: 1, 2, 5, 10, ..."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    for name in names:
        getattr(axes, f"set_{name}scale")("log")
        axis = getattr(axes, f"{name}axis")
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter(FuncFormatter(lambda value, place: f"{value:,.12g}"))
        axis.set_minor_formatter(NullFormatter())
