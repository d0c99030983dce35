"""Figures 3 and 4: recall and coverage against the share of items scored."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from nann.manifest import search_to_json

from ..reports.plots import BLUE, GREEN, GREY, ORANGE, PURPLE, RED, figure, line, percent_axis
from ..reports.store import Json
from ..reports.text import percent, table
from .curves import frontier, search_in_words, value_at
from .paper import userbehavior_curve
from .runs import Runs
from .settings import StudySettings
from .study import Study


class Method(NamedTuple):
    """A curve of figure 3 or 4: its model and its search."""

    name: str
    auxiliary: bool
    search: str  # "beam", "while_loop" or "seeded", which is beam-retrieval entered by seeds
    color: str


NANN = Method("NANN", auxiliary=True, search="beam", color=BLUE)
NANN_HNSW = Method("NANN-HNSW", auxiliary=True, search="while_loop", color=ORANGE)
SL2G = Method("SL2G", auxiliary=False, search="while_loop", color=GREEN)
WITHOUT_AUX = Method("NANN without aux", auxiliary=False, search="beam", color=PURPLE)
SEEDED = Method("NANN entered by seeds (ours)", auxiliary=True, search="seeded", color=RED)
METHODS = {"3": (NANN, NANN_HNSW, SL2G, SEEDED), "4": (NANN, WITHOUT_AUX)}

_METRICS = {"recall": "recall_retrieval", "coverage": "coverage"}
_TITLES = {
    ("3", "recall"): "Beam-retrieval against while-loop search: recall",
    ("3", "coverage"): "Beam-retrieval against while-loop search: coverage",
    ("4", "recall"): "What the auxiliary loss changes: recall",
    ("4", "coverage"): "What the auxiliary loss changes: coverage",
}


def _inputs(figure_number: str, settings: StudySettings) -> Json:
    methods = [method[:3] for method in METHODS[figure_number]]
    sweeps = {"beam": settings.beam_sweep(), "seeded": settings.seeded_sweep()}
    searches = {name: [asdict(params) for params in sweep] for name, sweep in sweeps.items()}
    return {"methods": methods, **searches, "best_first_ef": settings.best_first_ef}


def run(figure_number: str, runs: Runs, settings: StudySettings) -> Json:
    """`curves`: the points of every method, by share scored; `exhaustive`: recall-all of each model."""
    curves, exhaustive = {}, {}
    for method in METHODS[figure_number]:
        if method is SEEDED and not settings.base.light.enabled:
            continue
        curves[method.name] = _sweep(runs, settings, method)
        exhaustive["with aux" if method.auxiliary else "without aux"] = curves[method.name][0]["recall_all"]
    return {"top_k": settings.search.top_k, "seed": settings.seeds[0], "curves": curves, "exhaustive": exhaustive}


def _methods(figure_number: str, result: Json) -> list[Method]:
    return [method for method in METHODS[figure_number] if method.name in result["curves"]]


def _sweep(runs: Runs, settings: StudySettings, method: Method) -> list[Json]:
    model = runs.get(settings.config(auxiliary=method.auxiliary))
    if method.search == "while_loop":
        top_k = settings.search.top_k
        points = [{"ef": [ef], **model.best_first(top_k, ef)} for ef in settings.best_first_ef if ef >= top_k]
    else:
        sweep = settings.seeded_sweep() if method.search == "seeded" else settings.beam_sweep()
        points = [{**search_to_json(params), **model.beam(params)} for params in sweep]
    return sorted(points, key=lambda point: (point["share_scored"], -point["coverage"]))


def plot(figure_number: str, metric: str, result: Json, path: Path) -> None:
    """Plots each method's frontier, exhaustive scoring, and the paper's coverage curves in a lighter colour.

    The paper's recall curves are left out: recall on another data set is on another level.
    """
    with figure(path, _TITLES[figure_number, metric]) as (axes,):
        for method in _methods(figure_number, result):
            _draw(axes, result["curves"][method.name], method, _METRICS[metric])
            if metric == "coverage" and method is not SEEDED:
                paper = userbehavior_curve(figure_number, method.name, metric)
                x, y = ([100 * value for value in values] for values in zip(*paper, strict=True))
                label = "dotted: the paper, 4.2 M items" if method is METHODS[figure_number][0] else None
                axes.plot(x, y, color=method.color, alpha=0.45, linestyle=":", linewidth=1.4, label=label)
        _draw_exhaustive(axes, figure_number, metric, result)
        _log_share_axis(axes)
        percent_axis(axes.yaxis, f"{metric}@{result['top_k']}")
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.13), ncols=3)


def _draw(axes: Any, points: list[Json], method: Method, metric: str) -> None:
    if method.search == "beam":
        x, y = ([100 * point[key] for point in points] for key in ("share_scored", metric))
        axes.plot(x, y, linestyle="", marker=".", color=method.color, alpha=0.3)
    best = frontier(points, metric) if method.search == "beam" else points
    x, y = ([100 * point[key] for point in best] for key in ("share_scored", metric))
    line(axes, x, y, method.name, method.color)


def _draw_exhaustive(axes: Any, figure_number: str, metric: str, result: Json) -> None:
    if metric == "coverage":
        axes.axhline(100, color=GREY, linestyle="--", linewidth=1.2, label="exhaustive scoring")
        return
    colors = {"with aux": NANN.color, "without aux": (SL2G if figure_number == "3" else WITHOUT_AUX).color}
    for name, value in result["exhaustive"].items():
        axes.axhline(100 * value, color=colors[name], linestyle="--", linewidth=1.2, label=f"exhaustive, {name}")


def _log_share_axis(axes: Any) -> None:
    """Makes x a logarithmic axis of percentages, labelled at 1, 1.5, 2, 3, 5 and 7 of each decade."""
    from matplotlib.ticker import LogLocator

    axes.set_xscale("log")
    percent_axis(axes.xaxis, "items scored, share of the corpus")
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 1.5, 2.0, 3.0, 5.0, 7.0)))


def markdown(figure_number: str, result: Json) -> str:
    """A sentence and the frontier of every method."""
    rows = []
    for method in _methods(figure_number, result):
        points = result["curves"][method.name]
        for point in frontier(points, "coverage") if method.search == "beam" else points:
            values = (point["share_scored"], point["recall_retrieval"], point["coverage"])
            rows.append([method.name, search_in_words(point), *map(percent, values)])
    header = ["method", "search", "items scored", "recall", "coverage"]
    whole = ", ".join(f"{percent(value)} {name}" for name, value in result["exhaustive"].items())
    return f"{_reading(figure_number, result)} Exhaustive recall@{result['top_k']}: {whole}.\n\n{table(header, rows)}"


def _reading(figure_number: str, result: Json) -> str:
    other = METHODS[figure_number][1]
    ours = [method for method in _methods(figure_number, result) if method in (NANN, SEEDED)]
    return " ".join(_compared(method.name, other.name, result["curves"]) for method in ours)


def _compared(one: str, other: str, curves: Json) -> str:
    ours, theirs = (frontier(curves[name], "coverage") for name in (one, other))
    covered = ((value_at(ours, "share_scored", each["share_scored"], "coverage"), each["coverage"]) for each in theirs)
    gains = [mine - their for mine, their in covered if mine is not None]
    if not gains:
        return f"The curves of {one} and {other} share no range of items scored."
    ahead = sum(gain > 0 for gain in gains)
    low, high = (f"{100 * gain:+.2f}" for gain in (min(gains), max(gains)))
    return (
        f"{one} covers more than {other} at {ahead} of the {len(gains)} shares of items scored where both have a "
        f"value. The difference is {low} to {high} percentage points."
    )


def _study(number: str, title: str) -> Study:
    return Study(
        name=f"figure{number}",
        title=title,
        configs=lambda settings: [settings.config(auxiliary=True), settings.config(auxiliary=False)],
        inputs=partial(_inputs, number),
        run=partial(run, number),
        markdown=partial(markdown, number),
        plots={f"figure{number}_{metric}.png": partial(plot, number, metric) for metric in _METRICS},
    )


FIGURE3 = _study("3", "Figure 3: beam-retrieval and while-loop search")
FIGURE4 = _study("4", "Figure 4: with and without the auxiliary loss")
