"""What a search does for each user: its parameters by layer, and the items that it starts with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from nann import item_sets
from nann.conditions import Conditions, packed, padded
from nann.errors import RequestError
from nann.graph import HnswGraph
from nann.kernels import BoolArray, Int32Array, Int64Array, Kernels
from nann.light_walk import light_scan, light_walk, scan_is_cheaper
from nann.lockstep import keep_rows, overlay, take_rows
from nann.search_input import SearchIndex, UnlinkedItems, UserBatch
from nann.search_params import SearchParams, SeedParams
from nann.signature import PADDING_ITEM

EXACT_WORTH, EXACT_WORTH_BY_LAYERS = 1.5, 2.5
"""How many items all at once are scored in the time of a search that scores one, and expands, merges and walks.

By layers a search under conditions is slower, as more of what it walks through is bridges, and finds less.
"""


@dataclass(frozen=True, eq=False)
class Plan:
    """The parameters of B users, who may enter the graph in different ways.

    Where ef or rounds say nothing of a layer that a user does not walk, they are 1 and 0. Both are cut to N, which
    changes no result: W holds distinct items, and every round but the last finds a new one.

    Attributes:
        top_k: `int64[B]`.
        width: the result's K, kept apart because a batch may have no users.
        ef: `int32[layers, B]`, ground first.
        rounds: `int32[layers, B]`.
        seeds: the light walk of each user who starts at seeds, whether or not a scan takes its place.
        every: `bool[B]`, True: all items that may be shown are scored at the start, and there are no rounds.
        scanned: `int64[B]`, not 0: so many seeds are the best of all items that may be shown by light score, in place
            of those of a light walk, and there are no rounds.
    """

    top_k: Int64Array
    width: int
    ef: Int32Array
    rounds: Int32Array
    seeds: tuple[SeedParams | None, ...]
    every: BoolArray
    scanned: Int64Array

    @classmethod
    def of(
        cls,
        params: SearchParams | Sequence[SearchParams],
        users: int,
        index: SearchIndex,
        conditions: Conditions | None = None,
    ) -> Plan:
        """The plan for B users.

        Raises:
            RequestError: if the parameters do not fit the users or the graph.
        """
        graph = index.graph
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
        scanned, every = np.zeros(users, np.int64), np.zeros(users, np.bool_)
        for row, one in enumerate(each):
            if conditions is None or not conditions.hindered[row]:
                every[row] = one.every_item
            else:
                every[row], scanned[row] = _at_once(one, int(conditions.matching[row]), index)
            if every[row] or scanned[row]:
                ef[0, row] = min(one.top_k, index.item_count)
                continue
            for array, values in ((ef, one.ef), (rounds, one.rounds)):
                array[: len(values), row] = [min(value, index.item_count) for value in reversed(values)]
        seeds = tuple(None if alone else one.seeds for one, alone in zip(each, every, strict=True))
        return cls(top_k, width, ef, rounds, seeds, every, scanned)

    @property
    def seeded(self) -> BoolArray:
        """`bool[B]`, who starts at seeds."""
        return np.array([one is not None for one in self.seeds], np.bool_)


def _at_once(params: SearchParams, matching: int, index: SearchIndex) -> tuple[bool, int]:
    """`Plan.every` and `Plan.scanned` of a user who may be shown `matching` items, and not all of the graph.

    Who has few scores all of them and walks nowhere. Nor do those who start at seeds, where a scan of all that may be
    shown costs less than a light walk: they score as many of its best as the search scores without conditions, and
    find more than walks among items that may not be shown.
    """
    if params.every_item:
        return True, 0
    evaluations = max(expected_evaluations(params, index.graph), params.top_k)
    if matching <= (EXACT_WORTH_BY_LAYERS if params.seeds is None else EXACT_WORTH) * evaluations:
        return True, 0
    scans = params.seeds is not None and scan_is_cheaper(params.seeds, matching, index.item_count)
    return False, min(evaluations, matching) if scans else 0


def expected_evaluations(params: SearchParams, graph: HnswGraph) -> int:
    """About how many items a search scores without conditions."""
    start = len(graph.entry_points) if params.seeds is None else params.seeds.count
    layers = zip(reversed(params.ef), reversed(params.rounds), graph.layer_sizes, strict=False)
    found = [
        min(ef * Conditions.reach(graph, layer), size) for layer, (ef, rounds, size) in enumerate(layers) if rounds
    ]
    return start + sum(found)  # later rounds find few more


@dataclass(frozen=True, eq=False)
class Start:
    """Where B users start.

    Attributes:
        items: `int32[B, n]`, scored first; each row is padded with -1 at its end.
        bridges: `int32[B, m]`, items that may not be shown: the first round on each layer walks through them too, the
            most promising first, as far as ef has room for them beside W. None: there are no conditions.
    """

    items: Int32Array
    bridges: Int32Array | None

    @classmethod
    def of(
        cls,
        index: SearchIndex,
        users: UserBatch,
        plan: Plan,
        conditions: Conditions | None,
        walked: Conditions | None,
        kernels: Kernels,
    ) -> Start:
        """Entry points, seeds and own items, or all items that may be shown: what a user's plan says.

        `walked` are the conditions that the walk must heed: None where only added items are blocked.

        Raises:
            RequestError: if somebody starts at seeds, and the index has no light vectors.
            ScorerError: if a user's vector for the light score is not finite.
        """
        entering = ~plan.seeded & ~plan.every
        own = np.empty((len(users), 0), np.int32) if users.own_items is None else users.own_items
        own = keep_rows(own, plan.seeded)
        entry_points = entry_blocked = np.empty((len(users), 0), np.int32)
        if entering.any():
            entry_points = keep_rows(np.tile(index.graph.entry_points, (len(users), 1)), entering)  # [B, E]
        bridges = None
        if walked is not None:
            own, own_blocked = walked.split(own)
            if entering.any():
                entry_points, entry_blocked = walked.split(entry_points)
                entry_points = _topped_up(packed(entry_points), entering, walked, index.graph)
            first = np.concatenate([own_blocked[:, ::-1], entry_blocked], axis=1)  # own items with the latest first
            bridges = padded([_distinct(row[row != PADDING_ITEM]) for row in first])
        seeds = _seeds(index, users, plan, conditions, kernels)
        seeds = seeds if own.shape[1] == 0 else _distinct_rows(seeds, own)
        if index.added is not None:
            assert conditions is not None
            added = _best_added(index.added, users, plan, conditions, kernels)
            entry_points, seeds = _distinct_rows(entry_points, seeds, added), seeds[:, :0]
        items = overlay([entry_points, seeds, _all_that_match(plan.every, index.item_count, conditions)])
        return cls(np.empty((len(users), 0), np.int32) if items is None else items, bridges)


def _distinct(items: Int32Array) -> Int32Array:
    return np.array(list(dict.fromkeys(items.tolist())), np.int32)


def _seeds(
    index: SearchIndex, users: UserBatch, plan: Plan, conditions: Conditions | None, kernels: Kernels
) -> Int32Array:
    """Seeds of the users who start there: `int32[B, n]`, padded with -1; n may be 0."""
    scanning = plan.scanned > 0
    found = []
    if len(rows := np.flatnonzero(plan.seeded & ~scanning)):
        states, theirs = take_rows(users.states, rows), None if conditions is None else conditions[rows]
        params = [one for one, scans in zip(plan.seeds, scanning, strict=True) if one is not None and not scans]
        found.append((rows, light_walk(index, states, params, theirs, kernels=kernels).items))
    if len(rows := np.flatnonzero(scanning)):
        assert conditions is not None
        items, _ = light_scan(
            index.light_codes,
            users.states[rows],
            conditions.blocked[rows],
            plan.scanned[rows],
            kernels,
        )
        found.append((rows, items))
    seeds = np.full((len(users), max((items.shape[1] for _, items in found), default=0)), PADDING_ITEM, np.int32)
    for rows, items in found:
        seeds[rows, : items.shape[1]] = items
    return seeds


def _best_added(
    added: UnlinkedItems, users: UserBatch, plan: Plan, conditions: Conditions, kernels: Kernels
) -> Int32Array:
    """Added items that are scored at the start, since no walk leads to them: `int32[B, any]`, padded with -1.

    The top_k best by light score, or the latest without one. Users whose start holds all, or the best of all, get none.
    """
    rows = np.flatnonzero(~plan.every & (plan.scanned == 0))
    items = np.full((len(users), min(int(plan.top_k.max(initial=0)), added.count)), PADDING_ITEM, np.int32)
    blocked = np.ascontiguousarray(conditions.blocked[rows, added.first // 64 :])
    wanted = np.minimum(plan.top_k[rows], added.count)
    if added.light_codes is None:
        for row, latest in zip(rows, blocked, strict=True):
            found = item_sets.members(item_sets.invert(latest, added.count))[::-1][: plan.top_k[row]]
            items[row, : len(found)] = added.first + found
        return items
    newer = replace(added.light_codes, codes=added.light_codes.codes[added.first :])
    found, _ = light_scan(newer, users.states[rows], blocked, wanted, kernels)
    items[rows, : found.shape[1]] = np.where(found == PADDING_ITEM, PADDING_ITEM, added.first + found)
    return items


def _distinct_rows(*parts: Int32Array) -> Int32Array:
    """The items of these arrays (`int32[B, any]`): distinct, padded at the end."""
    merged = -np.sort(-np.concatenate(parts, axis=1), axis=1)  # descending: padding comes last
    merged[:, 1:][merged[:, 1:] == merged[:, :-1]] = PADDING_ITEM
    merged = -np.sort(-merged, axis=1)
    return np.ascontiguousarray(merged[:, : np.count_nonzero(merged != PADDING_ITEM, axis=1).max(initial=0)])


def _topped_up(entry_points: Int32Array, entering: BoolArray, conditions: Conditions, graph: HnswGraph) -> Int32Array:
    """Entry points that may be shown, with as many other items that may be shown in place of those that may not."""
    rows = [row[row != PADDING_ITEM] for row in entry_points]
    for user in np.flatnonzero(entering & conditions.restricted):
        missing = len(graph.entry_points) - len(rows[user])
        rows[user] = np.concatenate([rows[user], conditions.some(int(user), missing, rows[user])])
    return padded(rows)


def _all_that_match(every: BoolArray, item_count: int, conditions: Conditions | None) -> Int32Array:
    """All items that these users (`bool[B]`) may be shown: `int32[B, any]`."""
    nothing = np.empty(0, np.int32)
    if not every.any():
        return np.empty((len(every), 0), np.int32)
    if conditions is not None:
        return padded([conditions.members(row) if all_of_them else nothing for row, all_of_them in enumerate(every)])
    return keep_rows(np.tile(np.arange(item_count, dtype=np.int32), (len(every), 1)), every)


def best_unscored(
    index: SearchIndex,
    users: UserBatch,
    conditions: Conditions,
    kernels: Kernels,
    counts: Int64Array,
    scored: Int32Array,
) -> Int32Array:
    """More items that may be shown: those with the best light scores, or, without light vectors, any.

    Args:
        index: with or without light vectors.
        users: B of them.
        conditions: theirs.
        kernels: the inner loops.
        counts: `int64[B]`, how many each user gets, if there are so many; users whom nothing is blocked for get none.
        scored: `int32[B, X]`, items that are not asked for again, -1 ignored.

    Returns:
        `int32[B, any]`, padded with -1 at the end of each row.
    """
    rows = np.flatnonzero(conditions.restricted & (counts > 0))
    found = [np.empty(0, np.int32)] * len(users)
    if not len(rows):
        return padded(found)
    if index.light_vectors is None:
        for row in rows.tolist():
            found[row] = conditions.some(row, int(counts[row]), scored[row][scored[row] != PADDING_ITEM])
        return padded(found)
    blocked = conditions.blocked[rows]  # a copy
    kernels.mark(blocked, scored[rows])
    best, _ = light_scan(index.light_codes, users.states[rows], blocked, counts[rows], kernels)
    for row, items in zip(rows.tolist(), best, strict=True):
        found[row] = items[items != PADDING_ITEM]
    return padded(found)
