"""The walk that enters by seeds (ours) beside the paper's walk and beside the cascade of the same light score.

All three are counted in scorer evaluations. What the light score costs, thousands of inner products, is not counted, in
the favour of both that use it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from nann.bundle import search_to_json
from nann.light_walk import light_users
from nann.scorer import Float32Array, Int32Array, Scorer
from nann.search_input import SearchIndex
from nann.search_params import SearchParams
from nann.signature import ENTRY_LAYERS, ENTRY_SEEDS

from ...reports.plots import COLORS, MARKERS, figure, plain_log
from ...reports.text import percent, table
from ...search.measured_users import MeasuredUsers
from ...search.tuning_search import SearchTuning, tune_search
from .other_retrievers import ScoredPool

LABELS = {
    "layers": "the paper's walk",
    "seeds": "seeded walk (ours)",
    "cascade": "cascade: all items by the light score, re-ranked",
}
_COVERAGE_STEP = 0.005
"""Coverage between two settings of the tuned frontier that are measured."""
_USER_BLOCK = 16
_FINE_PASSES = 3
"""Of the tuner's small steps: what the paper's walk needs for the highest coverage makes them long."""


def compare(
    index: SearchIndex,
    scorer: Scorer,
    tuning: MeasuredUsers,
    test: MeasuredUsers,
    *,
    coverages: Sequence[float],
    budgets: Sequence[int],
    max_share: float,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Tunes both walks on one set of users and measures them, and the cascade, on another.

    Args:
        index: with light vectors.
        scorer: the judge.
        tuning: users to tune on.
        test: users to measure with.
        coverages: what is tuned for, and read off the curves.
        budgets: evaluations at which the cascade is measured, at least K.
        max_share: largest share of the corpus that tuning may score.
        say: takes progress lines.

    Returns:
        `curves`: points by evaluations of "layers", "seeds" and "cascade"; `at`: evaluations of each at each coverage,
        None where a curve does not reach it, and `evaluations_ratio`, seeds to layers.
    """
    assert index.light_vectors is not None
    curves: dict[str, list[dict[str, Any]]] = {}
    for entry in (ENTRY_LAYERS, ENTRY_SEEDS):
        settings: dict[SearchParams, None] = {}
        tuned: SearchTuning | None = None
        # One beyond them: a curve that ends where it was tuned for may end below that on other users.
        beyond = (1 + max(coverages)) / 2
        for wanted in (beyond, *sorted(coverages, reverse=True)):
            say(f"tuning entry {entry} for coverage {wanted:.2%}")
            passes = 0 if wanted == beyond else _FINE_PASSES
            tuned = tune_search(
                index,
                scorer,
                tuning,
                wanted,
                entry=entry,
                max_share=max_share,
                after=tuned,
                fine_passes=passes,
            )
            settings |= dict.fromkeys(trial.params for trial in tuned.thinned(_COVERAGE_STEP))
        say(f"measuring {len(settings)} searches of entry {entry}")
        curves[entry] = _sorted(_walk(index, scorer, test, params) for params in settings)
    say("measuring the cascade")
    pool = ScoredPool.of(scorer, test.batch.states, light_top(index.light_vectors, test.batch.states, max(budgets)))
    curves["cascade"] = _sorted(test.point(pool.best(budget, test.top_k).items, budget) for budget in budgets)
    return {
        "users": len(test),
        "items": index.item_count,
        "top_k": test.top_k,
        "recall_all": test.recall(test.exact),
        "curves": curves,
        "at": {_key(wanted): _at(curves, wanted) for wanted in coverages},
    }


def light_top(light_vectors: Float32Array, states: Float32Array, n: int) -> Int32Array:
    """The n best items by the light score, by brute force, best first: `int32[U, n]`."""
    n = min(n, len(light_vectors))
    rows = []
    for start in range(0, len(states), _USER_BLOCK):
        scores = light_users(states[start : start + _USER_BLOCK], light_vectors.shape[1]) @ light_vectors.T
        best = np.argpartition(-scores, n - 1, axis=1)[:, :n]
        order = np.argsort(-np.take_along_axis(scores, best, axis=1), axis=1, kind="stable")
        rows.append(np.take_along_axis(best, order, axis=1))
    return np.concatenate(rows).astype(np.int32)


def evaluations_at(points: Sequence[Mapping[str, Any]], wanted: float) -> float | None:
    """Evaluations at a coverage, linear between the points that no cheaper one beats; None outside of them."""
    best: list[Mapping[str, Any]] = []
    for point in sorted(points, key=lambda point: (point["evaluations"], -point["coverage"])):
        if not best or point["coverage"] > best[-1]["coverage"]:
            best.append(point)
    for low, high in pairwise(best):
        if low["coverage"] <= wanted <= high["coverage"]:
            weight = (wanted - low["coverage"]) / (high["coverage"] - low["coverage"])
            return float(low["evaluations"] + weight * (high["evaluations"] - low["evaluations"]))
    return None


def plot(result: Mapping[str, Any], path: Path) -> None:
    """Coverage and recall against scorer evaluations."""
    with figure(path, panels=2) as axes:
        for axis, metric in zip(axes, ("coverage", "recall"), strict=True):
            for place, (name, points) in enumerate(result["curves"].items()):
                x, y = ([point[key] for point in points] for key in ("evaluations", metric))
                y = [100 * value for value in y]
                axis.plot(x, y, color=COLORS[place], marker=MARKERS[place], markersize=4, label=LABELS[name])
            plain_log(axis, "x")
            axis.set_xlabel(f"scorer evaluations a user (of {result['items']:,} items)")
            axis.set_ylabel(f"{metric}@{result['top_k']} (%)")
        axes[1].axhline(100 * result["recall_all"], color="black", linestyle=":", label="every item scored")
        for axis in axes:
            axis.legend(fontsize=7, loc="lower right")


def markdown(result: Mapping[str, Any]) -> str:
    """Evaluations at each coverage, and every measured point."""
    names = list(LABELS)
    counts = [
        [percent(float(key[3:]) / 100, 0), *(_count(at[name]) for name in names), _ratio(at["evaluations_ratio"])]
        for key, at in result["at"].items()
    ]
    header = [f"coverage@{result['top_k']}", *(LABELS[name] for name in names), "ours / the paper's"]
    points = [
        [
            LABELS[name],
            _search(point),
            _count(point["evaluations"]),
            percent(point["coverage"]),
            percent(point["recall"]),
        ]
        for name in names
        for point in result["curves"][name]
    ]
    columns = ["method", "search", "scorer evaluations", "coverage", "recall"]
    return (
        f"{result['users']} test users, {result['items']:,} items; tuned on validation users. Scorer evaluations a "
        f"user at equal coverage, read off the curves:\n\n{table(header, counts)}\n\nRecall of scoring every item: "
        f"{percent(result['recall_all'])}. All that was measured:\n\n{table(columns, points)}"
    )


def _walk(index: SearchIndex, scorer: Scorer, users: MeasuredUsers, params: SearchParams) -> dict[str, Any]:
    return {**users.walk(index, scorer, params), "search": search_to_json(params)}


def _sorted(points: Any) -> list[dict[str, Any]]:
    return sorted(points, key=lambda point: point["evaluations"])


def _key(wanted: float) -> str:
    return f"cov{100 * wanted:g}"


def _at(curves: Mapping[str, Sequence[Mapping[str, Any]]], wanted: float) -> dict[str, float | None]:
    at = {name: evaluations_at(points, wanted) for name, points in curves.items()}
    layers, seeds = at["layers"], at["seeds"]
    return {**at, "evaluations_ratio": seeds / layers if seeds is not None and layers is not None else None}


def _count(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f}"  # noqa: RUF001  as in `text`


def _ratio(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"  # noqa: RUF001


def _search(point: Mapping[str, Any]) -> str:
    search = point.get("search")
    if search is None:
        return ""
    seeds = search.get("seeds")
    text = f"ef {search['ef']}, rounds {search['rounds']}"
    return text if seeds is None else f"{seeds['count']} seeds, {text}"
