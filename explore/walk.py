"""The walk of one user through the graph, round by round, as the picture shows it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nann.beam_search import RoundTrace, beam_search
from nann.conditions import Conditions
from nann.graph import HnswGraph
from nann.kernels import NATIVE, Int32Array
from nann.scorer import Float32Array, Scorer
from nann.search_input import SearchIndex, UserBatch
from nann.search_params import SearchParams
from nann.search_result import SearchResult
from nann.search_start import Plan
from nann.signature import PADDING_ITEM
from nann.stage_clock import StageClock


@dataclass(frozen=True, eq=False)
class Round:
    """One scorer call.

    Attributes:
        layer: that the walk is on; 0 = the ground.
        number: of the round on this layer; 0 = the start.
        frontier: `int32[F]`, the items whose neighbours were scored.
        scored: `int32[S]`, the items that were scored: the start's entry points or seeds, else new neighbours.
        parents: `int32[S]`, an item of the frontier that each was found from; -1: none.
        best: `int32[W]`, the best items so far, best first.
    """

    layer: int
    number: int
    frontier: Int32Array
    scored: Int32Array
    parents: Int32Array
    best: Int32Array

    def to_json(self) -> dict[str, Any]:
        """As the page reads it."""
        arrays = {name: getattr(self, name).tolist() for name in ("frontier", "scored", "parents", "best")}
        return {"layer": self.layer, "round": self.number, **arrays}


@dataclass(frozen=True, eq=False)
class Walk:
    """The rounds of a search, what it found and where its time went.

    Attributes:
        rounds: in their order.
        result: of the search.
        stages_ms: milliseconds by stage (`nann.stage_clock.STAGES`), and `total`.
    """

    rounds: Sequence[Round]
    result: SearchResult
    stages_ms: dict[str, float]

    @property
    def items(self) -> Int32Array:
        """`int32[V]`, all items that the walk scored, ascending."""
        return np.asarray(np.unique(np.concatenate([np.zeros(0, np.int32), *(each.scored for each in self.rounds)])))


def walks(index: SearchIndex, user: UserBatch, params: SearchParams) -> bool:
    """Whether a search walks; False: it scores all items that may be shown, or the best of a scan of them."""
    conditions = Conditions.of(user, index.item_count, NATIVE, index.graph.item_count)
    plan = Plan.of(params, len(user), index, conditions)
    return not (plan.every[0] or plan.scanned[0])


def traced_walk(index: SearchIndex, scorer: Scorer, user: UserBatch, params: SearchParams) -> Walk:
    """The same search as `nann.beam_search` of one user, watched."""
    traces: list[RoundTrace] = []
    clock, recorder = StageClock(), _Recorder(scorer)
    start_ns = time.perf_counter_ns()
    result = beam_search(
        index, clock.scorer(recorder), user, params, kernels=clock.kernels(NATIVE), observer=traces.append
    )
    total_ns = time.perf_counter_ns() - start_ns
    rounds: list[Round] = []
    for trace, scored in zip(traces, recorder.calls, strict=True):
        rounds.append(_round(index.graph, rounds[-1] if rounds else None, trace, scored))
    stages = {stage: spent / 1e6 for stage, spent in clock.elapsed_ns.items()}
    return Walk(rounds, result, {**stages, "total": total_ns / 1e6})


def _round(graph: HnswGraph, before: Round | None, trace: RoundTrace, scored: Int32Array) -> Round:
    layer, number = int(trace.layers[0]), int(trace.rounds[0])
    best = trace.items[0][trace.items[0] != PADDING_ITEM]
    frontier = np.zeros(0, np.int32)
    if before is not None:
        # The first round of a layer starts from all of W, a later one from what the round before brought into it.
        fresh = number > 1 and before.layer == layer
        frontier = before.best[np.isin(before.best, before.scored)] if fresh else before.best
    return Round(layer, number, frontier, scored, _parents(graph, layer, frontier, scored), best)


def _parents(graph: HnswGraph, layer: int, frontier: Int32Array, scored: Int32Array) -> Int32Array:
    """For each scored item an item of the frontier that has it as a neighbour, the best one; -1: none has."""
    parent = dict.fromkeys(scored.tolist(), PADDING_ITEM)
    links = graph.layers[layer]
    for item in frontier[::-1].tolist():
        for neighbour in links.neighbors[links.indptr[item] : links.indptr[item + 1]].tolist():
            if neighbour in parent:
                parent[neighbour] = item
    return np.array(list(parent.values()), np.int32)


class _Recorder:
    """Passes every call on to `scorer`, and keeps which items it was for."""

    def __init__(self, scorer: Scorer) -> None:
        self._scorer = scorer
        self.calls: list[Int32Array] = []

    def score(self, user_states: Float32Array, candidates: Int32Array) -> Float32Array:
        """See `nann.scorer.Scorer`."""
        self.calls.append(candidates[0][candidates[0] != PADDING_ITEM])
        return self._scorer.score(user_states, candidates)
