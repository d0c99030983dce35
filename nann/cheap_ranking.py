"""Rankings for the time when the scorer is unavailable; they run no model. Not in the paper.

If the bundle has a light score, a light walk ranks the items (`nann.light_walk`). Otherwise the graph does: it links
items that are near in L2, so a short random walk from a user's own items most often visits items near to many of them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from nann import item_sets
from nann.conditions import Conditions
from nann.graph import Layer
from nann.kernels import NATIVE, Float32Array, Int32Array
from nann.light_walk import light_walk
from nann.search_input import SearchIndex, UserBatch
from nann.search_params import SearchParams, SeedParams
from nann.search_result import fit
from nann.signature import PADDING_ITEM, PADDING_SCORE

_WIDER = 4
"""The light walk's ef as a multiple of the search's: light scores are cheap, and no scorer corrects its misses."""
_MORE = 2
"""More items than are asked for, since a scan rounds scores."""
_STEPS = 2
"""Of the random walk: two steps reach hundreds to thousands of items, more than a top_k."""
_CONTINUE = 0.5
"""The chance to take one more step."""


def rank_by_light_score(
    index: SearchIndex, users: UserBatch, params: Sequence[SearchParams]
) -> tuple[Int32Array, Float32Array]:
    """The items with the best light score that a light walk finds; none that is blocked.

    Args:
        index: with light vectors; the ground layer of its graph is walked.
        users: the last columns of their states are their vectors for the light score.
        params: one per user; the walk's ef is a multiple of the largest ef that the search has on the ground layer.

    Returns:
        `int32[B, K]` items, best first, padded with -1, and `float32[B, K]` light scores, padded with
        `PADDING_SCORE`; K is the largest top_k.

    Raises:
        RequestError: if the index has no light vectors.
        ScorerError: if a user's vector is not finite.
    """
    widths = [one.ef[-1] if one.seeds is None else max(one.ef[-1], one.seeds.ef) for one in params]
    walks = [SeedParams(_MORE * one.top_k, _WIDER * width) for one, width in zip(params, widths, strict=True)]
    conditions = Conditions.of(users, index.item_count, NATIVE, index.graph.item_count)
    found = light_walk(index, users.states, walks, conditions)
    items, scores = _by_exact_score(index, users, found.items, found.scores)
    top_k = np.array([one.top_k for one in params], np.int64)
    return fit(items, scores, top_k, int(top_k.max(initial=0)))


def _by_exact_score(
    index: SearchIndex, users: UserBatch, items: Int32Array, scores: Float32Array
) -> tuple[Int32Array, Float32Array]:
    """Items (`int32[B, n]`) by their light scores, where a scan may have rounded them; equal ones by smaller index."""
    assert index.light_vectors is not None
    linked = (items != PADDING_ITEM) & (items < len(index.light_vectors))  # of other items there are codes alone
    vectors = index.light_vectors[np.where(linked, items, 0)]  # [B, n, d]
    exact = np.einsum("bnd,bd->bn", vectors, users.states[:, -index.light_width :])
    scores = np.where(linked, exact, scores).astype(np.float32)
    order = np.lexsort((items, -scores), axis=1)  # padding has the least score
    return np.take_along_axis(items, order, axis=1), np.take_along_axis(scores, order, axis=1)


def rank_by_neighbourhood(index: SearchIndex, users: UserBatch, top_k: int) -> tuple[Int32Array, Float32Array]:
    """The items that a random walk of a few steps on the ground layer, from a user's own items, most often visits.

    A user's own items come first, the most frequent ones before the others, since the walk starts there. It walks
    through blocked items, which are not returned; if it visits too few others, any follow that may be shown.

    Args:
        index: the ground layer of its graph is walked.
        users: a user without own items gets no items.
        top_k: K.

    Returns:
        `int32[B, K]` items, best first, equal scores by smaller index, padded with -1, and `float32[B, K]` expected
        visits, padded with `PADDING_SCORE`.
    """
    items = np.full((len(users), top_k), PADDING_ITEM, np.int32)
    scores = np.full((len(users), top_k), PADDING_SCORE, np.float32)
    conditions = Conditions.of(users, index.item_count, NATIVE)
    for row in range(len(users)):
        own = np.empty(0, np.int32) if users.own_items is None else users.own_items[row]
        visited, visits = _expected_visits(index.graph.layers[0], own[own != PADDING_ITEM])
        if conditions is not None and conditions.restricted[row]:
            visited, visits = _shown(conditions, row, visited, visits, top_k)
        best = np.lexsort((visited, -visits))[:top_k]
        items[row, : len(best)] = visited[best]
        scores[row, : len(best)] = visits[best]
    return items, scores


def _shown(
    conditions: Conditions, row: int, visited: Int32Array, visits: npt.NDArray[np.float64], top_k: int
) -> tuple[Int32Array, npt.NDArray[np.float64]]:
    """The visited items that may be shown, and others, without visits, if those are fewer than top_k."""
    shown = ~item_sets.contains(conditions.blocked[row : row + 1], visited[None])[0]
    visited, visits = visited[shown], visits[shown]
    others = conditions.some(row, max(0, top_k - len(visited)), visited)
    return np.concatenate([visited, others]), np.concatenate([visits, np.zeros(len(others))])


def _expected_visits(ground: Layer, start: Int32Array) -> tuple[Int32Array, npt.NDArray[np.float64]]:
    """Distinct items, and the expected number of visits by a walk from a random position of `start`."""
    here, chance = _summed(start, np.full(len(start), 1 / max(1, len(start))))
    visited, visits = [here], [chance]
    for _ in range(_STEPS):
        here, chance = _summed(*_step(ground, here, _CONTINUE * chance))
        visited.append(here)
        visits.append(chance)
    return _summed(np.concatenate(visited), np.concatenate(visits))


def _step(
    ground: Layer, items: Int32Array, chance: npt.NDArray[np.float64]
) -> tuple[Int32Array, npt.NDArray[np.float64]]:
    """All neighbours of `items`, each with its share of the item's chance."""
    first = ground.indptr[items].astype(np.int64)
    degree = ground.indptr[items + 1] - first
    offset = np.arange(degree.sum()) - np.repeat(np.cumsum(degree) - degree, degree)  # of a neighbour within its list
    neighbors = ground.neighbors[np.repeat(first, degree) + offset]
    return neighbors, np.repeat(chance / np.maximum(degree, 1), degree)


def _summed(items: Int32Array, weights: npt.NDArray[np.float64]) -> tuple[Int32Array, npt.NDArray[np.float64]]:
    """Distinct items, ascending, with the sum of their weights."""
    distinct, place = np.unique(items, return_inverse=True)
    return distinct, np.bincount(place, weights, len(distinct)).astype(np.float64)
