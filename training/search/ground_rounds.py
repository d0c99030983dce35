"""What a search returns and costs after 1, 2, ... rounds of the ground layer, measured in one walk."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from nann.beam_search import RoundTrace, beam_search
from nann.request_conditions import items_matching
from nann.scorer import Float32Array, Int32Array, Scorer
from nann.search_input import SearchIndex
from nann.search_params import SearchParams
from nann.signature import PADDING_ITEM

from .measured_users import MeasuredUsers


class GroundRounds(NamedTuple):
    """Results of U users by ground round, without excluded items; R is how many rounds are within the cost limit.

    Attributes:
        items: `int32[R, U, K]`, best first, padded with -1. `items[r]` is the result of a search with r + 1 rounds.
        items_scored: `int64[R, U]`, the scorer evaluations of that search.
    """

    items: Int32Array
    items_scored: npt.NDArray[np.int64]


def search_by_ground_round(
    index: SearchIndex, scorer: Scorer, users: MeasuredUsers, params: SearchParams, most_scored: float = np.inf
) -> GroundRounds:
    """Walks once for all users, and gives the result for every number of ground rounds up to `params.rounds[-1]`.

    Rounds for which the mean number of items scored per user exceeds `most_scored` are left out. The walk ends as soon
    as no other rounds remain. With 0 ground rounds the only result is that of no round.
    """
    excluded = users.excluded
    width = params.top_k + excluded.most_extra(params.top_k)
    recorder = _Recorder(scorer, len(users), width, params.rounds[-1], most_scored)
    with suppress(_OnlyTooExpensiveRemainsError):
        beam_search(index, recorder, users.batch, excluded.widened(params), observer=recorder.observe)
    affordable = np.count_nonzero(recorder.items_scored.mean(axis=1) <= most_scored)  # cost rises with the rounds
    items = np.empty((affordable, len(users), params.top_k), np.int32)
    for place in range(affordable):
        _top_up(index, scorer, users, replace(params, rounds=_cut(params.rounds, place)), recorder, place)
        items[place] = excluded.without(recorder.items[place], params.top_k)
    return GroundRounds(items, recorder.items_scored[:affordable])


def _cut(rounds: tuple[int, ...], place: int) -> tuple[int, ...]:
    return (*rounds[:-1], min(place + 1, rounds[-1]))


def _top_up(
    index: SearchIndex, scorer: Scorer, users: MeasuredUsers, params: SearchParams, recorder: _Recorder, place: int
) -> None:
    """Searches again for users with too short a list: under conditions, a search ends with one more step for them."""
    if users.batch.blocked is None:
        return
    matching = items_matching(users.batch.blocked, len(users), index.item_count)
    searches = users.excluded.widened(params)
    found = np.count_nonzero(recorder.items[place] != PADDING_ITEM, axis=1)
    wanted = np.minimum([one.top_k for one in searches], matching)
    rows = np.flatnonzero((found < wanted) & (matching < index.item_count))
    if len(rows):
        again = beam_search(index, scorer, users.batch[rows], [searches[row] for row in rows])
        recorder.items[place, rows] = PADDING_ITEM
        recorder.items[place, rows, : again.items.shape[1]] = again.items
        recorder.items_scored[place, rows] = again.items_scored


class _OnlyTooExpensiveRemainsError(Exception):
    """Ends the walk from inside the observer."""


class _Recorder:
    """A scorer that counts candidates, and an observer that adds the counts and W to the rounds they belong to."""

    def __init__(self, scorer: Scorer, users: int, width: int, rounds: int, most_scored: float) -> None:
        rounds = max(rounds, 1)
        self.items = np.full((rounds, users, width), PADDING_ITEM, np.int32)
        self.items_scored = np.zeros((rounds, users), np.int64)
        self._scorer, self._most_scored = scorer, most_scored
        self._counts = np.empty(0, np.int64)

    def score(self, user_states: Float32Array, candidates: Int32Array) -> Float32Array:
        """See `nann.scorer.Scorer`."""
        self._counts = np.count_nonzero(candidates != PADDING_ITEM, axis=1)
        return self._scorer.score(user_states, candidates)

    def observe(self, trace: RoundTrace) -> None:
        """Records one scorer call; calls above the ground layer count for every number of ground rounds."""
        first = np.where(trace.layers == 0, np.maximum(trace.rounds - 1, 0), 0)
        best = trace.items[:, : self.items.shape[2]]
        for place in np.unique(first):
            chosen = first == place
            rows = trace.rows[chosen]
            self.items_scored[place:, rows] += self._counts[chosen]
            self.items[place:, rows] = PADDING_ITEM
            self.items[place:, rows, : best.shape[1]] = best[chosen]
        too_expensive = self.items_scored.mean(axis=1) > self._most_scored
        # Users missing from the trace have finished. Once all others are past the affordable rounds, those are final.
        if too_expensive.any() and (too_expensive[0] or first.min() >= too_expensive.argmax()):
            raise _OnlyTooExpensiveRemainsError
