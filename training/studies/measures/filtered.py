"""Searches under filters, against exhaustive scoring of the items that match.

Filters are drawn: at a share of the items, and with or without regard to what the user likes. All items have a score
for every user, so the exact filtered list and the filter's correlation with the user's taste are known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from time import process_time

import numpy as np
import numpy.typing as npt

from nann import item_sets
from nann.beam_search import beam_search
from nann.kernels import NATIVE
from nann.lockstep import score_candidates
from nann.metrics import coverage
from nann.scorer import Float32Array, Int32Array, Scorer
from nann.search_input import SearchIndex, UserBatch
from nann.search_params import SearchParams
from nann.search_result import SearchResult

from ...reports.store import Json

BoolArray = npt.NDArray[np.bool_]

SELECTIVITIES = (0.9, 0.5, 0.2, 0.1, 0.04, 0.01, 0.003, 0.001, 0.0001)
BROAD = 0.2
"""The share of each of the two filters that are joined by "and"."""
UNCORRELATED, POSITIVE, NEGATIVE = "uncorrelated", "positive", "negative"
AND, OPPOSED = "and", "and, opposed"
_LIKED = 0.01
"""A filter that a user's taste correlates with has the best item 1 / 0.01 times as often as the worst, or as rarely."""
_CHUNK = 1 << 16


@dataclass(frozen=True)
class DrawnFilter:
    """A filter of a share of the items.

    Attributes:
        kind: one of the constants above.
        share: of the items that match; of a kind with "and", that of each of its two filters.
    """

    kind: str
    share: float

    def matching(self, places: Float32Array) -> BoolArray:
        """Which items match for a user, `bool[N]`, at least one; `places` as in `FilteredSearch`, `float32[N]`."""
        if self.kind not in (AND, OPPOSED):
            return _drawn(self.kind, self.share, places, 0)
        kinds = (UNCORRELATED, UNCORRELATED) if self.kind == AND else (POSITIVE, NEGATIVE)
        first, second = (_drawn(kind, self.share, places, number) for number, kind in enumerate(kinds))
        return first & second


def drawn_filters(selectivities: Sequence[float]) -> list[DrawnFilter]:
    """The filters to measure: every correlation at every selectivity, and two with "and"."""
    each = [DrawnFilter(kind, share) for kind in (UNCORRELATED, POSITIVE, NEGATIVE) for share in selectivities]
    return [*each, DrawnFilter(AND, BROAD), DrawnFilter(OPPOSED, BROAD)]


def _drawn(kind: str, share: float, places: Float32Array, number: int) -> BoolArray:
    """A weighted sample of round(share N) items without replacement; the same numbers are drawn for all users."""
    count = len(places)
    keys = _exponential(number, count)
    if kind != UNCORRELATED:
        weights = places + np.float32(_LIKED)  # 0.01 for the best item
        keys = keys * weights if kind == POSITIVE else keys / weights
    found = np.zeros(count, np.bool_)
    found[np.argpartition(keys, (wanted := max(round(share * count), 1)) - 1)[:wanted]] = True
    return found


@lru_cache(maxsize=2)
def _exponential(number: int, count: int) -> Float32Array:
    return np.random.default_rng(number).exponential(size=count).astype(np.float32)


@dataclass(frozen=True, eq=False)
class FilteredSearch:
    """A search for U users whose scores of all N items are known.

    Attributes:
        index: with light vectors if the search enters by seeds.
        scorer: gives the scores.
        users: without conditions.
        params: the search.
        scores: `float32[U, N]`.
        places: `float32[U, N]`, the place of each item in the user's order by score, 0 = best, divided by N.
        plain: what it finds for each user without conditions.
    """

    index: SearchIndex
    scorer: Scorer
    users: UserBatch
    params: SearchParams
    scores: Float32Array
    places: Float32Array
    plain: list[SearchResult]

    @classmethod
    def of(cls, index: SearchIndex, scorer: Scorer, users: UserBatch, params: SearchParams) -> FilteredSearch:
        """Scores every item for these users."""
        scores = np.empty((len(users), index.item_count), np.float32)
        for row in range(len(users)):
            for first in range(0, index.item_count, _CHUNK):
                items = np.arange(first, min(first + _CHUNK, index.item_count), dtype=np.int32)[None]
                found = score_candidates(scorer, users.states[row : row + 1], items)
                scores[row, first : first + _CHUNK] = found[0]
        places = np.empty_like(scores)
        for row in range(len(users)):
            places[row, np.argsort(-scores[row], kind="stable")] = np.arange(index.item_count) / index.item_count
        plain = [beam_search(index, scorer, user, params) for user in _one_by_one(users)]
        return cls(index, scorer, users, params, scores, places, plain)

    def taken(self, count: int) -> FilteredSearch:
        """For the first users alone."""
        few = slice(count)
        return replace(
            self, users=self.users[few], scores=self.scores[few], places=self.places[few], plain=self.plain[few]
        )

    @property
    def unfiltered(self) -> Json:
        """Coverage and evaluations without conditions."""
        exact = np.concatenate([self.exact(row, None) for row in range(len(self.users))])
        found = SearchResult.concatenate(self.plain)
        return {"coverage": coverage(found.items, exact), "evaluations": float(found.items_scored.mean())}

    def exact(self, row: int, matching: BoolArray | None) -> Int32Array:
        """The exact list of one user among the items that match (`bool[N]`, None: all): `int32[1, K]`, -1 = padding."""
        items = np.arange(self.index.item_count, dtype=np.int32) if matching is None else np.flatnonzero(matching)
        return best_of(items.astype(np.int32), self.scores[row], self.params.top_k)

    def measure(self, matching: Callable[[Float32Array], BoolArray], repeats: int) -> tuple[Json, Int32Array]:
        """The measures of the search under each user's filter, and how many items were scored: `int32[U]`.

        Args:
            matching: which items match, `bool[N]`, for a user with these `places`, `float32[N]`.
            repeats: how often each user's search is timed, with and without the filter in turn; the fastest counts.
        """
        found, exact, shares, times = [], [], [], []
        for row, user in enumerate(_one_by_one(self.users)):
            allowed = matching(self.places[row])
            under = UserBatch(user.states, user.own_items, blocked(allowed)[None])
            found.append(beam_search(self.index, self.scorer, under, self.params))
            exact.append(self.exact(row, allowed))
            shares.append(allowed.mean())
            times.append(np.min([[self._ms(user), self._ms(under)] for _ in range(repeats)], axis=0))
        result = SearchResult.concatenate(found)
        plain_ms, ms = np.median(times, axis=0)
        evaluations, before = result.items_scored.mean(), np.mean([one.items_scored.mean() for one in self.plain])
        return {
            "share": float(np.mean(shares)),
            "matching": float(result.items_matching.mean()),
            "coverage": coverage(result.items, np.concatenate(exact)),
            "evaluations": float(evaluations),
            "evaluations_ratio": float(evaluations / before),
            "p50_ms": float(ms),
            "p50_ratio": float(ms / plain_ms),
            "all_scored": float((result.items_scored == result.items_matching).mean()),
        }, result.items_scored

    def _ms(self, user: UserBatch) -> float:
        start = process_time()
        beam_search(self.index, self.scorer, user, self.params)
        return 1000 * (process_time() - start)


def best_of(items: Int32Array, scores: Float32Array, top_k: int) -> Int32Array:
    """The best of `items` (`int32[X]`, distinct) by the scores of all items (`float32[N]`): `int32[1, top_k]`."""
    ef = np.array([top_k], np.int32)
    none = np.empty((1, 0), np.int32)
    found, _, _ = NATIVE.merge_top(none, none.astype(np.float32), items[None], scores[items][None], ef)
    return np.pad(found, ((0, 0), (0, top_k - found.shape[1])), constant_values=-1)


def blocked(matching: BoolArray) -> npt.NDArray[np.uint64]:
    """The items that do not match (`bool[N]`) as a set, `uint64[W]`."""
    return item_sets.of_items(np.flatnonzero(~matching).astype(np.int32), len(matching))


def _one_by_one(users: UserBatch) -> Iterator[UserBatch]:
    return (users[row : row + 1] for row in range(len(users)))
