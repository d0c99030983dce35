"""Common retrievers: cheap candidates re-ranked by the same scorer, at equal scorer evaluations.

A cheap retriever gives each user an ordered list of candidates. The deep scorer evaluates the first n of them and keeps
the best K. The retriever's own cost (inner products, look-ups) is not counted, which favours it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hnswlib
import numpy as np
import numpy.typing as npt

from nann.kernels import NATIVE
from nann.lockstep import score_candidates
from nann.scorer import Float32Array, Int32Array, Scorer
from nann.search_input import SearchIndex
from nann.search_params import SearchParams
from nann.signature import PADDING_ITEM, PADDING_SCORE

from ...baselines.plain import OwnItems, Popular
from ...reports import text
from ...reports.plots import GREY, figure
from ...reports.text import percent
from ...search.measured_users import MeasuredUsers
from ..curves import draw_curves
from .inner_product_index import InnerProductIndex

_USER_BLOCK, _ITEM_CHUNK = 16, 4096
_M, _EF_CONSTRUCTION, _LEAST_EF = 32, 200, 400
LABELS = {
    "nann": "NANN: the paper's walk with the scorer",
    "nann_seeded": "NANN entered by seeds (ours)",
    "cascade": "cascade: two-tower + hnswlib, re-ranked",
    "item_to_item": "item-to-item, re-ranked",
    "popular_reranked": "most popular, re-ranked",
    "popular": "most popular",
    "personal_50": "own most frequent of the last 50",
    "personal_200": "own most frequent of the last 200",
}


@dataclass(frozen=True)
class Retrieved:
    """Results of U users: `items` is `int32[U, K]`, `evaluations` (of the scorer) `int64[U]`."""

    items: Int32Array
    evaluations: npt.NDArray[np.int64]


@dataclass(frozen=True)
class TwoTower:
    """The vectors of a trained two-sided model: `users` is `float32[U, d]`, `items` is `float32[N, d]`."""

    users: Float32Array
    items: Float32Array


@dataclass(frozen=True)
class ScoredPool:
    """Candidates of U users in the retriever's order, with the deep scorer's scores.

    Attributes:
        items: `int32[U, n]`, distinct in a row, padded with -1 at the end.
        scores: `float32[U, n]`, `PADDING_SCORE` where padded.
    """

    items: Int32Array
    scores: Float32Array

    @classmethod
    def of(cls, scorer: Scorer, states: Float32Array, candidates: Int32Array) -> ScoredPool:
        """Scores `candidates`, `int32[U, n]`, for users with `states`, `float32[U, S]`."""
        scores = np.full(candidates.shape, PADDING_SCORE, np.float32)
        for start in range(0, len(states), _USER_BLOCK):
            users = slice(start, start + _USER_BLOCK)
            for first in range(0, candidates.shape[1], _ITEM_CHUNK):
                part = np.ascontiguousarray(candidates[users, first : first + _ITEM_CHUNK])
                found = score_candidates(scorer, np.ascontiguousarray(states[users]), part)
                scores[users, first : first + _ITEM_CHUNK] = np.where(part == PADDING_ITEM, PADDING_SCORE, found)
        return cls(candidates, scores)

    def best(self, budget: int, top_k: int) -> Retrieved:
        """The best `top_k` of the first `budget` candidates; of equal scores the smaller item first, as in a search."""
        items = np.ascontiguousarray(self.items[:, :budget])
        scores = np.ascontiguousarray(self.scores[:, :budget])
        none = np.empty((len(items), 0), np.int32)
        ef = np.full(len(items), top_k, np.int32)
        found, _, _ = NATIVE.merge_top(none, none.astype(np.float32), items, scores, ef)
        padded = np.pad(found, ((0, 0), (0, top_k - found.shape[1])), constant_values=PADDING_ITEM)
        return Retrieved(padded, np.count_nonzero(items != PADDING_ITEM, axis=1))


def cascade_candidates(two_tower: TwoTower, n: int) -> Int32Array:
    """The two-tower model's top n by hnswlib: `int32[U, n]`, best inner product first.

    If hnswlib can't find n items, brute force does, which favours the cascade.
    """
    n = min(n, len(two_tower.items))
    index = InnerProductIndex(two_tower.items)
    try:
        found = index.best(two_tower.users, n)
    except RuntimeError:
        blocks = [two_tower.users[i : i + _USER_BLOCK] for i in range(0, len(two_tower.users), _USER_BLOCK)]
        order = [np.argsort(-(block @ two_tower.items.T), axis=1, kind="stable")[:, :n] for block in blocks]
        found = np.concatenate(order).astype(np.int32)
    return found


def item_to_item_candidates(behaviors: Int32Array, item_vectors: Float32Array, n: int) -> Int32Array:
    """Neighbours (L2) of the user's behaviours: the nearest of each, then the second nearest of each, ...

    Args:
        behaviors: `int32[U, L]`, oldest first, padded with -1. Within a rank, the latest behaviour comes first.
        item_vectors: `float32[N, d]`.
        n: candidates per user.

    Returns:
        `int32[U, n]`, distinct in a row, padded with -1 at the end.
    """
    n = min(n, len(item_vectors))
    index = _index(item_vectors)
    out = np.full((len(behaviors), n), PADDING_ITEM, np.int32)
    for user, row in enumerate(behaviors):
        latest = _distinct(row[row != PADDING_ITEM][::-1])
        found = _round_robin(index, item_vectors, latest, n) if len(latest) else latest
        out[user, : len(found)] = found
    return out


def run(
    *,
    index: SearchIndex,
    scorer: Scorer,
    users: MeasuredUsers,
    item_vectors: Float32Array,
    two_tower: TwoTower,
    popular: Popular,
    histories: Mapping[int, Int32Array],
    tuned: SearchParams,
    budgets: Sequence[int],
) -> dict[str, Any]:
    """Compares beam-retrieval and the other retrievers on the same users, with the same scorer.

    Args:
        index: the index that beam-retrieval searches.
        scorer: the judge.
        users: to compare on, with their exact top K by the same scorer; item-to-item starts from their behaviours.
        item_vectors: `float32[N, d]` for item-to-item.
        two_tower: the cascade's first stage, for the same users.
        popular: the popular items.
        histories: H -> `int32[U, H]`, the last H behaviours, for `OwnItems`.
        tuned: recommended search parameters. Its mean number of scorer evaluations is the budget at which `baselines`
            compares.
        budgets: scorer evaluations per user at which the curves are measured, besides that of `tuned`. Those below K
            are left out.

    Returns:
        `curves` (points by evaluations), `baselines` (recall, coverage, evaluations each), `recall_all`, counts.
    """
    states, top_k = users.batch.states, users.top_k
    nann = {**users.walk(index, scorer, tuned), "ef": list(tuned.ef), "rounds": list(tuned.rounds)}
    reference = max(round(nann["evaluations"]), top_k)
    steps = sorted({min(budget, index.item_count) for budget in (*budgets, reference) if budget >= top_k})
    sources: dict[str, Callable[[], Int32Array]] = {
        "cascade": lambda: cascade_candidates(two_tower, steps[-1]),
        "item_to_item": lambda: item_to_item_candidates(users.queries.behaviors, item_vectors, steps[-1]),
        "popular_reranked": lambda: popular.rank(users.queries.behaviors, steps[-1]),
    }
    curves, baselines = {"nann": [nann]}, {"nann": nann}
    for name, candidates in sources.items():
        pool = ScoredPool.of(scorer, states, candidates())
        found = {budget: pool.best(budget, top_k) for budget in steps}
        points = {n: {**users.point(one.items, one.evaluations.mean()), "budget": n} for n, one in found.items()}
        curves[name] = list(points.values())
        baselines[name] = points[min(reference, index.item_count)]
    plain = {"popular": popular.rank(users.queries.behaviors, top_k)}
    plain |= {f"personal_{h}": OwnItems(popular).rank(rows, top_k) for h, rows in histories.items()}
    for name, items in plain.items():
        baselines[name] = users.point(items, 0)
    return {
        "users": len(states),
        "items": index.item_count,
        "top_k": top_k,
        "recall_all": users.recall(users.exact),
        "baselines": baselines,
        "curves": curves,
    }


def plot(result: Mapping[str, Any], path: Path) -> None:
    """Plots recall and coverage against scorer evaluations; lists that need no scorer are horizontal lines."""
    plain = [name for name in result["baselines"] if name not in result["curves"]]
    with figure(path, panels=2) as axes:
        for axis, metric in zip(axes, ("recall", "coverage"), strict=True):
            draw_curves(axis, result, metric, LABELS)
        axes[0].axhline(100 * result["recall_all"], color="black", linewidth=1, label="every item scored")
        for name, style in zip(plain, ("-", "--", ":", "-."), strict=False):
            recall_of = 100 * result["baselines"][name]["recall"]
            axes[0].axhline(recall_of, color=GREY, linestyle=style, linewidth=1.2, label=LABELS.get(name, name))
        axes[0].set_title(f"What users did next ({result['users']} users)")
        axes[1].set_title("The exact top list of the same scorer")
        axes[0].legend(fontsize=7)


def table(result: Mapping[str, Any]) -> str:
    """A Markdown table with one row per method, at the scorer evaluations of the tuned search."""
    top_k = result["top_k"]
    everything = {"evaluations": result["items"], "recall": result["recall_all"], "coverage": 1.0}
    rows = [
        [LABELS.get(name, name), f"{one['evaluations']:,.0f}", percent(one["recall"]), percent(one["coverage"])]
        for name, one in {"every item scored": everything, **result["baselines"]}.items()
    ]
    return text.table(["method", "scorer evaluations per user", f"recall@{top_k}", f"coverage@{top_k}"], rows)


def _index(vectors: Float32Array) -> hnswlib.Index:
    index = hnswlib.Index(space="l2", dim=vectors.shape[1])
    index.init_index(max_elements=len(vectors), M=_M, ef_construction=_EF_CONSTRUCTION, random_seed=1)
    index.add_items(vectors, np.arange(len(vectors)))
    return index


def _round_robin(index: hnswlib.Index, vectors: Float32Array, latest: Int32Array, n: int) -> Int32Array:
    """At most n distinct neighbours of the items `latest`: the nearest of each, then the second nearest, ..."""
    k = -(-2 * n // len(latest))
    while True:
        k = min(k, len(vectors))
        index.set_ef(max(2 * k, _LEAST_EF))
        try:
            near = index.knn_query(vectors[latest], k=k)[0].astype(np.int32)  # [items, k]
        except RuntimeError:
            distance = (vectors**2).sum(axis=1) - 2 * vectors[latest] @ vectors.T  # without the behaviour's own norm
            near = np.argsort(distance, axis=1, kind="stable")[:, :k].astype(np.int32)
        found = _distinct(near.T.reshape(-1))  # [k, items] -> [k * items]
        if len(found) >= n or k == len(vectors):
            return found[:n]
        k *= 2


def _distinct(items: Int32Array) -> Int32Array:
    """Each item once, at its first position."""
    return items[np.sort(np.unique(items, return_index=True)[1])]
