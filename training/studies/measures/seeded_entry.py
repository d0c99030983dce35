"""Compares entry by seeds (ours) with the paper's entry and with a cascade of the same light score.

The cost is the number of scorer evaluations. The light score's thousands of inner products are not counted, which
favours entry by seeds and the cascade.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nann.errors import ConfigError
from nann.light_walk import light_users
from nann.manifest import search_to_json
from nann.scorer import Float32Array, Int32Array, Scorer
from nann.search_input import SearchIndex
from nann.search_params import SearchParams
from nann.signature import ENTRY_LAYERS, ENTRY_SEEDS

from ...reports.plots import figure
from ...reports.text import MISSING, percent, table
from ...search.measured_users import MeasuredUsers
from ...search.tuning_search import tune_search
from ...search.tuning_trials import Aim, SearchTuning
from ..curves import draw_curves, frontier, search_in_words, value_at
from .other_retrievers import ScoredPool

LABELS = {
    "layers": "the paper's walk",
    "seeds": "seeded walk (ours)",
    "cascade": "cascade: all items by the light score, re-ranked",
}
_USER_BLOCK = 16
_FINE_PASSES = 3
"""Fewer passes of small steps than the tuner's default, since the paper's walk is slow at the highest coverage."""


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
    """Tunes both entry strategies on one set of users, and measures them and the cascade on another.

    The searches are tuned for each of `coverages`, and score at most `max_share` of the corpus. The cascade is measured
    at `budgets` scorer evaluations per user; those below K are left out.

    Returns:
        `curves`: points of "layers", "seeds" and "cascade" by evaluations; `at`: evaluations of each at each coverage,
        None if a curve does not reach it, and `evaluations_ratio`, seeds to layers.

    Raises:
        ConfigError: if the index has no light vectors.
    """
    if index.light_vectors is None:
        raise ConfigError(
            "the model has no light head; set light.enabled in its configuration to compare entry by seeds"
        )
    curves: dict[str, list[dict[str, Any]]] = {}
    for entry in (ENTRY_LAYERS, ENTRY_SEEDS):
        settings: dict[SearchParams, None] = {}
        tuned: SearchTuning | None = None
        # One more, since a curve tuned for the highest coverage may end below it on the test users.
        beyond = (1 + max(coverages)) / 2
        for wanted in (beyond, *sorted(coverages, reverse=True)):
            say(f"tuning entry {entry} for coverage {wanted:.2%}")
            passes = 0 if wanted == beyond else _FINE_PASSES
            tuned = tune_search(
                index, scorer, tuning, Aim(wanted), entry=entry, max_share=max_share, after=tuned, fine_passes=passes
            )
            settings |= dict.fromkeys(trial.params for trial in tuned.thinned)
        say(f"measuring {len(settings)} searches of entry {entry}")
        points = [{**test.walk(index, scorer, params), "search": search_to_json(params)} for params in settings]
        curves[entry] = sorted(points, key=lambda point: point["evaluations"])
    say("measuring the cascade")
    steps = sorted({min(budget, index.item_count) for budget in budgets if budget >= test.top_k})
    pool = ScoredPool.of(scorer, test.batch.states, light_top(index.light_vectors, test.batch.states, steps[-1]))
    curves["cascade"] = [test.point(pool.best(step, test.top_k).items, step) for step in steps]
    return {
        "users": len(test),
        "items": index.item_count,
        "top_k": test.top_k,
        "recall_all": test.recall(test.exact),
        "curves": curves,
        "at": {f"cov{100 * wanted:g}": _at(curves, wanted) for wanted in coverages},
    }


def light_top(light_vectors: Float32Array, states: Float32Array, n: int) -> Int32Array:
    """The n best items by the light score, found by brute force, best first: `int32[U, n]`."""
    n = min(n, len(light_vectors))
    rows = []
    for start in range(0, len(states), _USER_BLOCK):
        scores = light_users(states[start : start + _USER_BLOCK], light_vectors.shape[1]) @ light_vectors.T
        best = np.argpartition(-scores, n - 1, axis=1)[:, :n]
        order = np.argsort(-np.take_along_axis(scores, best, axis=1), axis=1, kind="stable")
        rows.append(np.take_along_axis(best, order, axis=1))
    return np.concatenate(rows).astype(np.int32)


def plot(result: Mapping[str, Any], path: Path) -> None:
    """Plots coverage and recall against scorer evaluations."""
    with figure(path, panels=2) as axes:
        for axis, metric in zip(axes, ("coverage", "recall"), strict=True):
            draw_curves(axis, result, metric, LABELS)
        axes[1].axhline(100 * result["recall_all"], color="black", linestyle=":", label="every item scored")
        for axis in axes:
            axis.legend(fontsize=7, loc="lower right")


def markdown(result: Mapping[str, Any]) -> str:
    """Evaluations at each coverage, and every measured point."""
    names = list(LABELS)
    counts = [
        [
            percent(float(key[3:]) / 100, 0),
            *(_shown(at[name], ",.0f") for name in names),
            _shown(at["evaluations_ratio"], ".2f"),
        ]
        for key, at in result["at"].items()
    ]
    header = [f"coverage@{result['top_k']}", *(LABELS[name] for name in names), "ours / the paper's"]
    points = [
        [
            LABELS[name],
            search_in_words(point.get("search", {})),
            f"{point['evaluations']:,.0f}",
            percent(point["coverage"]),
            percent(point["recall"]),
        ]
        for name in names
        for point in result["curves"][name]
    ]
    columns = ["method", "search", "scorer evaluations", "coverage", "recall"]
    return (
        f"{result['users']} test users, {result['items']:,} items; tuned on validation users. Scorer evaluations per "
        f"user at equal coverage, read off the curves:\n\n{table(header, counts)}\n\nRecall of scoring every item: "
        f"{percent(result['recall_all'])}. All measured points:\n\n{table(columns, points)}"
    )


def _at(curves: Mapping[str, Sequence[Mapping[str, Any]]], wanted: float) -> dict[str, float | None]:
    frontiers = {name: frontier(points, "coverage", "evaluations") for name, points in curves.items()}
    at = {name: value_at(points, "coverage", wanted, "evaluations") for name, points in frontiers.items()}
    layers, seeds = at["layers"], at["seeds"]
    return {**at, "evaluations_ratio": seeds / layers if seeds is not None and layers is not None else None}


def _shown(value: float | None, form: str) -> str:
    return MISSING if value is None else format(value, form)
