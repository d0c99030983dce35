"""The plot of `nann tune`: what coverage costs."""

from __future__ import annotations

from pathlib import Path

from nann.signature import ENTRY_ALL, ENTRY_LAYERS, ENTRY_SEEDS

from ..reports.plots import COLORS, GREY, figure, plain_log
from .tuning_trials import SearchTuning


def plot_frontier(tuning: SearchTuning, picked: str, item_count: int, users: int, path: Path) -> None:
    """Plots coverage against share scored: every setting tried, the frontier, and the one picked, in words."""
    top_k = tuning.trials[0].params.top_k
    frontier, best = tuning.frontier, tuning.best
    with figure(path) as (axis,):
        for entry, color in ((ENTRY_LAYERS, GREY), (ENTRY_SEEDS, COLORS[2]), (ENTRY_ALL, COLORS[3])):
            tried = [trial for trial in tuning.trials if trial.params.entry == entry]
            x, y = ([100 * getattr(trial, name) for trial in tried] for name in ("share_scored", "coverage"))
            if tried:
                axis.scatter(x, y, s=6, color=color, alpha=0.5, linewidths=0, label=f"tried, entry {entry}")
        line = [(100 * trial.share_scored, 100 * trial.coverage) for trial in frontier]
        axis.plot(*zip(*line, strict=True), color=COLORS[0], marker="o", markersize=3, label="frontier")
        if tuning.wanted.coverage:
            axis.axhline(100 * tuning.wanted.coverage, color="black", linestyle=":", label=f"wanted: {tuning.wanted}")
        if best is not None:
            pick = (100 * best.share_scored, 100 * best.coverage)
            axis.plot(*pick, color=COLORS[1], marker="*", markersize=14, linestyle="", label=f"picked: {picked}")
        plain_log(axis, "x")
        axis.set_xlabel(f"share of the {item_count:,} items scored (%)")
        axis.set_ylabel(f"coverage@{top_k} (%)")
        axis.set_title(f"What coverage costs ({users} validation users)")
        axis.legend(fontsize=8, loc="lower right")
