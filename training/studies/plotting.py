"""Plots of the studies: 1200 pixels wide, one message each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nann.errors import ConfigError

from ..reports import plots

BLUE, RED, GREEN, PURPLE, ORANGE = plots.COLORS[:5]
GREY = plots.GREY
MARKERS = dict(zip(plots.COLORS, plots.MARKERS, strict=True))
PAPER_ALPHA = 0.45
"""The paper's curves stand lightly behind ours."""
_WIDTH_INCHES, _HEIGHT_INCHES = 8.0, 4.8


def require_matplotlib() -> None:
    """Raises ConfigError where matplotlib is not installed: said before the hours of training, not after."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise ConfigError("matplotlib, which draws the plots, is missing: pip install 'nann[train]'") from error


@contextmanager
def figure(path: Path, title: str, panels: int = 1) -> Iterator[list[Any]]:
    """Axes to draw on, one a panel side by side, under a title; written to `path` as PNG at the end."""
    with plots.figure(path, panels, (_WIDTH_INCHES / panels, _HEIGHT_INCHES)) as axes:
        axes[0].figure.suptitle(title)
        yield axes


def percent_axis(axis: Any, label: str) -> None:
    """Labels an axis whose values are percentages (`axes.xaxis` or `axes.yaxis`)."""
    from matplotlib.ticker import FuncFormatter, NullFormatter

    axis.set_label_text(f"{label} [%]")
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def log_share_axis(axes: Any, label: str = "items scored, share of the corpus") -> None:
    """A logarithmic x axis of percentages with plain numbers at 1, 1.5, 2, 3, 5 and 7 of each decade."""
    from matplotlib.ticker import LogLocator

    axes.set_xscale("log")
    percent_axis(axes.xaxis, label)
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 1.5, 2.0, 3.0, 5.0, 7.0)))


def line(axes: Any, x: Sequence[float], y: Sequence[float], label: str, color: str) -> None:
    """A curve through points, with the colour's marker."""
    axes.plot(x, y, color=color, marker=MARKERS[color], markersize=5, linewidth=1.8, label=label)
