"""Beam-retrieval (Algorithms 1 and 2) for a batch of users in lockstep.

A search may enter the graph in two ways. The paper's way starts at all items of the entry layer and descends. Our way
starts on the ground layer, at the seeds that a light walk finds (`nann.light_walk`) and at the items of the user's
history, and continues with Algorithm 2 unchanged.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import numpy.typing as npt

from nann.conditions import Conditions
from nann.errors import RequestError
from nann.graph import HnswGraph
from nann.kernels import NATIVE, BoolArray, Int32Array, Int64Array, Kernels
from nann.lockstep import Lockstep, has_items, keep_rows, overlay
from nann.scorer import Scorer
from nann.search_input import SearchIndex, UserBatch
from nann.search_params import SearchParams
from nann.search_result import SearchResult
from nann.search_start import Plan, Start, best_unscored
from nann.signature import PADDING_ITEM

_BRIDGES = 4
"""The share of ef, as its divisor, that bridges get in the first round of a layer even if W fills ef."""


@dataclass(frozen=True, eq=False)
class RoundTrace:
    """The state after one scorer call; A is the number of users who took part.

    A round that finds no unvisited item calls no scorer and is not reported.

    Attributes:
        rows: `intp[A]`, the users' rows in the batch, ascending.
        layers: `int32[A]`, the layer each of them is on.
        rounds: `int32[A]`, the round of that layer, counted from 1; 0 = the start.
        items: `int32[A, width]`, W of each of them after the round, best first, padded with -1.
    """

    rows: npt.NDArray[np.intp]
    layers: Int32Array
    rounds: Int32Array
    items: Int32Array


Observer = Callable[[RoundTrace], None]
Stop = Callable[[], BoolArray]
"""Called before each scorer call. Where its `bool[B]` is True, a search ends with what it has found so far."""


def beam_search(
    index: SearchIndex,
    scorer: Scorer,
    users: UserBatch,
    params: SearchParams | Sequence[SearchParams],
    *,
    kernels: Kernels = NATIVE,
    observer: Observer | None = None,
    stop: Stop | None = None,
) -> SearchResult:
    """Finds the top_k best items of each user by walking the graph with the scorer.

    Each user has a layer and a round of their own. A user who finds nothing new goes on to the next layer in the same
    step. A step is one scorer call for all users with candidates, so a batch takes as many calls as its slowest user,
    at most 1 + the sum of that user's rounds.

    Args:
        index: to walk; it needs light vectors where `params` ask for seeds.
        scorer: gives the score of each candidate for its user; larger is better.
        users: their states are passed to the scorer; their own items are further seeds where `params` ask for seeds.
        params: for all users, or one per user; users of one batch may enter the graph in different ways.
        kernels: the inner loops.
        observer: called after every scorer call, for studies of recall by round (Figure 5).
        stop: for deadlines and cancellation; None: every search takes all of its rounds. A user whose search it ends
            leaves the batch, and the others go on.

    Returns:
        The items; rows of users with a smaller top_k than the largest, or with too few reachable items, are padded.

    Raises:
        RequestError: if `params` do not fit the batch or the index, or nothing is blocked where items were added.
        ScorerError: if the scorer's answer has the wrong shape or dtype or holds NaN, or a user's vector for the light
            score is not finite.
    """
    conditions = Conditions.of(users, index.item_count, kernels, index.graph.item_count)
    if index.added is not None and conditions is None:
        raise RequestError("the corpus has added items and nothing is blocked; expected at least the gap before them")
    walked = conditions if conditions is not None and conditions.hindered.any() else None
    plan = Plan.of(params, len(users), index, walked)
    width = int(plan.ef.max(initial=1))
    lockstep = Lockstep(index.graph, scorer, users.states, kernels, width, walked, index.item_count)
    walk = _BeamWalk(index.graph, lockstep, plan, observer, stop)
    if len(users):
        walk.enter(Start.of(index, users, plan, conditions, walked, kernels))
        while (candidates := walk.next_candidates()) is not None:
            walk.advance(candidates)
        if conditions is not None:
            walk.top_up(partial(best_unscored, index, users, conditions, kernels))
    result = lockstep.result(plan.top_k, plan.width)
    if conditions is not None:
        result = replace(result, items_matching=conditions.matching)
    return result if stop is None else replace(result, finished=walk.finished)


class _BeamWalk:
    """The position of B users: layer, rounds left on it, and frontier (C of the paper).

    Attributes:
        users: their W and visited items.
        finished: `bool[B]`, False: the search was stopped before its last round.
    """

    def __init__(
        self, graph: HnswGraph, users: Lockstep, plan: Plan, observer: Observer | None, stop: Stop | None
    ) -> None:
        self.users = users
        self.finished = np.ones(len(plan.top_k), np.bool_)
        self._graph = graph
        self._plan = plan
        self._bridges: Int32Array | None = None
        self._observer = observer
        self._stop = stop
        self._everyone = np.arange(len(plan.top_k))
        self._on_ground = plan.seeded | plan.every
        self._layer = np.where(self._on_ground, 0, graph.entry_layer).astype(np.int32)
        self._rounds_left = np.zeros(len(plan.top_k), np.int32)
        self._frontier = np.full_like(users.items, PADDING_ITEM)

    def enter(self, start: Start) -> None:
        """The start, one scorer call for all: scores every item of the entry layer, or what a user starts with instead.

        Entry layer (Algorithm 1): the start also completes this layer, whatever its T. All of its items are scored and
        W holds the best, so that no round could change W; `_rounds_left` stays 0.
        Seeds: the ground layer starts with all seeds visited, and with the ef best of them as W and frontier.
        """
        candidates = self._of_the_rest(start.items) if start.items.shape[1] else None
        self._bridges = start.bridges
        if candidates is None:
            return
        rows, _ = self.users.score(candidates, self._plan.ef[self._layer, self._everyone])
        self._report(rows, rounds=np.zeros_like(rows, np.int32))
        if self._on_ground.any():
            self.users.mark(start.items)
            self._rounds_left[self._on_ground] = self._plan.rounds[0, self._on_ground]
            self._frontier[self._on_ground] = self.users.items[self._on_ground]

    def next_candidates(self) -> Int32Array | None:
        """The unvisited neighbours of every user's frontier, `int32[B, C]`; None if all users are done.

        Layers are handled downwards, so that a user who finds nothing on one gets candidates from the next at once.
        """
        found = []
        for layer in range(int(self._layer.max()), -1, -1):
            here = self._layer == layer
            expanding = here & (self._rounds_left > 0)
            if expanding.any():
                candidates = self.users.expand(layer, self._with_bridges(keep_rows(self._frontier, expanding), layer))
                stuck = expanding & ~has_items(candidates)
                # N is empty. If C is not, this round still cuts W to ef; if C is empty, W has been cut already.
                self.users.truncate(stuck, self._plan.ef[layer])
                self._rounds_left[stuck] = 0
                found.append(candidates)
            self._descend(here & (self._rounds_left == 0), layer - 1)
        everyones = overlay(found)
        return None if everyones is None else self._of_the_rest(everyones)

    def advance(self, candidates: Int32Array) -> None:
        """Algorithm 2, the rest of a round: scores N, keeps the ef best in W; those new in W are the next frontier."""
        rows, is_new = self.users.score(candidates, self._plan.ef[self._layer, self._everyone])
        self._rounds_left[rows] -= 1
        self._frontier[rows] = np.where(is_new, self.users.items[rows], PADDING_ITEM)
        self._report(rows, (self._plan.rounds[self._layer, self._everyone] - self._rounds_left)[rows])

    def top_up(self, unscored: Callable[[Int64Array, Int32Array], Int32Array]) -> None:
        """One more step for users who have found fewer than top_k items although there are more that match.

        Args:
            unscored: which they score: called with how many each user wants, `int64[B]`, and W, `int32[B, width]`.
        """
        found = np.count_nonzero(self.users.items != PADDING_ITEM, axis=1)  # [B]
        short = self.finished & (found < self._plan.top_k)
        if not short.any():
            return
        candidates = unscored(np.where(short, self._plan.ef[0] - found, 0), self.users.items)
        self._layer[has_items(candidates)] = 0
        left = self._of_the_rest(candidates) if candidates.shape[1] else None
        if left is not None:
            rows, _ = self.users.score(left, self._plan.ef[0])
            self._report(rows, (self._plan.rounds[0] + 1)[rows])

    def _with_bridges(self, frontier: Int32Array, layer: int) -> Int32Array:
        """`frontier` (`int32[B, F]`), and in a user's first round on the layer the bridges that there is room for.

        Many own items are among the best, so that they would be in W if they might be shown: they get what W leaves of
        ef, and at least a quarter of it.
        """
        if self._bridges is None:
            return frontier
        begins = self._rounds_left == self._plan.rounds[layer]
        ef = self._plan.ef[layer]
        left = ef - np.count_nonzero(frontier != PADDING_ITEM, axis=1)
        room = np.where(begins, np.maximum(left, ef // _BRIDGES), 0)
        bridges = keep_rows(self._bridges, has_items(frontier))
        bridges = np.where(np.arange(bridges.shape[1]) < room[:, None], bridges, np.int32(PADDING_ITEM))
        self.users.mark(bridges)
        return np.concatenate([frontier, bridges], axis=1)

    def _of_the_rest(self, candidates: Int32Array) -> Int32Array | None:
        """`candidates` (`int32[B, C]`) without those of users whose search `stop` ends; None if none are left."""
        if self._stop is None:
            return candidates
        stopped = self._stop() & (self._layer >= 0)
        if not stopped.any():
            return candidates
        self.finished[stopped] = False
        self._layer[stopped] = -1
        candidates = keep_rows(candidates, ~stopped)
        width = np.count_nonzero(candidates != PADDING_ITEM, axis=1).max()  # the longest row may be gone
        return np.ascontiguousarray(candidates[:, :width]) if width else None

    def _descend(self, users: BoolArray, layer: int) -> None:
        """Moves these users to `layer`, or to -1, the end."""
        if not users.any():
            return
        self._layer[users] = layer
        if layer < 0:
            return
        self._rounds_left[users] = self._plan.rounds[layer, users]
        walking = users & (self._rounds_left > 0)
        if walking.any():
            self.users.start_layer(walking)
            self._frontier[walking] = self.users.items[walking]

    def _report(self, rows: npt.NDArray[np.intp], rounds: Int32Array) -> None:
        if self._observer is not None:
            self._observer(RoundTrace(rows, self._layer[rows], rounds, self.users.items[rows]))
