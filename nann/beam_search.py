"""Beam-retrieval (Algorithms 1 and 2) for a batch of users in lockstep.

A search may enter the graph in two ways. The paper's way starts at all items of the entry layer and descends. Our way
starts on the ground layer, at the seeds that a light walk finds (`nann.light_walk`) and at the items of the user's
history, and continues with Algorithm 2 unchanged.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from nann.errors import RequestError
from nann.graph import HnswGraph
from nann.kernels import NATIVE, BoolArray, Int32Array, Kernels
from nann.light_walk import light_walk
from nann.lockstep import Lockstep, has_items, keep_rows, overlay, take_rows
from nann.scorer import Scorer
from nann.search_input import SearchIndex, UserBatch
from nann.search_params import SearchParams, SeedParams
from nann.search_result import SearchResult
from nann.signature import PADDING_ITEM


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
        RequestError: if `params` do not fit the batch or the index.
        ScorerError: if the scorer's answer has the wrong shape or dtype or holds NaN, or a user's vector for the light
            score is not finite.
    """
    plan = _Plan.of(params, len(users), index.graph)
    lockstep = Lockstep(index.graph, scorer, users.states, kernels, int(plan.ef.max(initial=1)))
    walk = _BeamWalk(index.graph, lockstep, plan, observer, stop)
    if len(users):
        walk.enter(_seeds(index, users, plan.seeds, kernels))
        while (candidates := walk.next_candidates()) is not None:
            walk.advance(candidates)
    result = lockstep.result(plan.top_k, plan.width)
    return result if stop is None else replace(result, finished=walk.finished)


@dataclass(frozen=True)
class _Plan:
    """The parameters of B users: `top_k` is `int64[B]`, `ef` and `rounds` are `int32[layers, B]`, ground first.

    For users with seeds ef is 1 and rounds is 0 on the layers above the ground, which they do not walk. `width` is the
    result's K, kept apart because a batch may have no users.

    Both are cut to N, which changes no result: W holds distinct items, and every round but the last finds a new one.
    """

    top_k: npt.NDArray[np.int64]
    width: int
    ef: Int32Array
    rounds: Int32Array
    seeds: tuple[SeedParams | None, ...]

    @classmethod
    def of(cls, params: SearchParams | Sequence[SearchParams], users: int, graph: HnswGraph) -> _Plan:
        each = [params] * users if isinstance(params, SearchParams) else list(params)
        if len(each) != users:
            raise RequestError(f"got {len(each)} search parameters for {users} users; expected one, or one per user")
        for one in each:
            if len(one.ef) != (layers := one.layer_count(graph.entry_layer)):
                raise RequestError(
                    f"ef and rounds have {len(one.ef)} values; expected {layers}, "
                    f"one per layer from layer {layers - 1} down to the ground"
                )
        top_k = np.array([one.top_k for one in each], np.int64)
        width = params.top_k if isinstance(params, SearchParams) else int(top_k.max(initial=0))
        ef, rounds = (np.full((graph.entry_layer + 1, users), unused, np.int32) for unused in (1, 0))
        for row, one in enumerate(each):
            for array, values in ((ef, one.ef), (rounds, one.rounds)):
                array[: len(values), row] = [min(value, graph.item_count) for value in reversed(values)]
        return cls(top_k, width, ef, rounds, tuple(one.seeds for one in each))


def _seeds(index: SearchIndex, users: UserBatch, params: Sequence[SeedParams | None], kernels: Kernels) -> Int32Array:
    """Seeds and own items of the users whose search starts there: `int32[B, n]`, padded with -1; n may be 0."""
    wanted = [one for one in params if one is not None]
    if not wanted:
        return np.empty((len(params), 0), np.int32)
    rows = np.array([row for row, one in enumerate(params) if one is not None], np.intp)
    walkers = UserBatch(take_rows(users.states, rows), None)  # a light walk does not read own items
    found = light_walk(index, walkers, wanted, kernels=kernels).items
    seeds = np.full((len(params), found.shape[1]), PADDING_ITEM, np.int32)
    seeds[rows] = found
    return seeds if users.own_items is None else _with_own(seeds, users.own_items, params)


def _with_own(seeds: Int32Array, own_items: Int32Array, params: Sequence[SeedParams | None]) -> Int32Array:
    """Seeds (`int32[B, n]`) and, for users with seeds, own items (`int32[B, L]`): distinct, padded at the end."""
    own = keep_rows(own_items, np.array([one is not None for one in params], np.bool_))
    merged = -np.sort(-np.concatenate([seeds, own], axis=1), axis=1)  # descending: padding comes last
    merged[:, 1:][merged[:, 1:] == merged[:, :-1]] = PADDING_ITEM
    merged = -np.sort(-merged, axis=1)
    return np.ascontiguousarray(merged[:, : np.count_nonzero(merged != PADDING_ITEM, axis=1).max(initial=0)])


class _BeamWalk:
    """The position of B users: layer, rounds left on it, and frontier (C of the paper).

    Attributes:
        users: their W and visited items.
        finished: `bool[B]`, False: the search was stopped before its last round.
    """

    def __init__(
        self, graph: HnswGraph, users: Lockstep, plan: _Plan, observer: Observer | None, stop: Stop | None
    ) -> None:
        self.users = users
        self.finished = np.ones(len(plan.top_k), np.bool_)
        self._graph = graph
        self._plan = plan
        self._observer = observer
        self._stop = stop
        self._everyone = np.arange(len(plan.top_k))
        self._seeded = np.array([one is not None for one in plan.seeds], np.bool_)
        self._layer = np.where(self._seeded, 0, graph.entry_layer).astype(np.int32)
        self._rounds_left = np.zeros(len(plan.top_k), np.int32)
        self._frontier = np.full_like(users.items, PADDING_ITEM)

    def enter(self, seeds: Int32Array) -> None:
        """The start, one scorer call for all: scores every item of the entry layer, or a user's seeds (`int32[B, n]`).

        Entry layer (Algorithm 1): the start also completes this layer, whatever its T. All of its items are scored and
        W holds the best, so that no round could change W; `_rounds_left` stays 0.
        Seeds: the ground layer starts with all seeds visited, and with the ef best of them as W and frontier.
        """
        everything = overlay([*self._entry_points(), seeds])
        assert everything is not None  # the entry layer has items, and a light walk starts at them
        candidates = self._of_the_rest(everything)
        if candidates is None:
            return
        rows, _ = self.users.score(candidates, self._plan.ef[self._layer, self._everyone])
        self._report(rows, rounds=np.zeros_like(rows, np.int32))
        if self._seeded.any():
            self.users.mark(seeds)
            self._rounds_left[self._seeded] = self._plan.rounds[0, self._seeded]
            self._frontier[self._seeded] = self.users.items[self._seeded]

    def _entry_points(self) -> list[Int32Array]:
        """`int32[B, E]` for the users who start at the entry layer; an empty list if nobody does."""
        if self._seeded.all():
            return []
        entry_points = np.tile(self._graph.entry_points, (len(self._everyone), 1))  # [B, E]
        return [keep_rows(entry_points, ~self._seeded)]

    def next_candidates(self) -> Int32Array | None:
        """The unvisited neighbours of every user's frontier, `int32[B, C]`; None if all users are done.

        Layers are handled downwards, so that a user who finds nothing on one gets candidates from the next at once.
        """
        found = []
        for layer in range(int(self._layer.max()), -1, -1):
            here = self._layer == layer
            expanding = here & (self._rounds_left > 0)
            if expanding.any():
                candidates = self.users.expand(layer, keep_rows(self._frontier, expanding))
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
