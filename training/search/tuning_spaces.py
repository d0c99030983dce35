"""What `tuning_search` tries, one space an entry strategy: a coarse grid, and small steps around a point."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import product
from typing import Protocol

import numpy as np

from nann.graph import HnswGraph
from nann.search_params import SearchParams, SeedParams

_ENTRY_EF = (0.3, 1.2)
_UPPER_EF = (0.1, 0.2, 0.4, 0.8, 1.6)
_GROUND_EF = (1.0, 1.5, 2.5, 4.0)
_SEEDS = (1.0, 1.5, 2.5, 4.0, 6.0, 10.0, 16.0)
_SEEDS_ALONE = (1.5, 2.0, 3.0, 4.0, 6.0, 10.0, 16.0)
"""Coarse grids of ef and of seeds, in multiples of top_k."""
_UPPER_ROUNDS = (1, 2, 3, 5)
_GROUND_ROUNDS = 8
_FINE_STEPS = (0.7, 0.85, 0.95, 1.1, 1.25)
_LIGHT_EF = 2.0
"""ef of the light walk in multiples of the seeds: generous, until a smaller one gives seeds as good."""
_LESS_LIGHT = (1.0, 1.2, 1.5)

Upper = tuple[tuple[int, ...], tuple[int, ...]]
"""What comes before the ground layer: ef and rounds of the layers above it, or the number of seeds and nothing."""


class Space(Protocol):
    """Settings of one entry strategy; all have the most ground rounds, since one walk tells the fewer."""

    first_round_depends_on_ef: bool
    """Whether the first round on the ground layer differs with its ef."""

    def uppers(self) -> list[Upper]:
        """The coarse grid but for the ground layer, smaller settings first."""

    def ground_efs(self) -> list[int]:
        """The coarse grid of the ground layer, ascending."""

    def params(self, upper: Upper, ground_ef: int) -> SearchParams:
        """One point of the grid."""

    def without_rounds(self) -> Iterable[SearchParams]:
        """Settings that do not walk the ground layer at all, cheapest first."""

    def wider(self, params: SearchParams) -> SearchParams:
        """Every ef and the seeds doubled, as far as there are items."""

    def around(self, params: SearchParams) -> Iterable[SearchParams]:
        """Small steps, one value at a time."""

    def with_less_light(self, params: SearchParams) -> Iterable[SearchParams]:
        """The same with cheaper light walks; nothing where there is none."""


class LayersSpace:
    """The paper's entry: ef and rounds of every layer."""

    first_round_depends_on_ef = False

    def __init__(self, graph: HnswGraph, top_k: int) -> None:
        self._top_k = top_k
        self._sizes = graph.layer_sizes[graph.entry_layer :: -1]  # entry layer first

    def uppers(self) -> list[Upper]:
        """See `Space`."""
        sizes = self._sizes[:-1]
        if not sizes:
            return [((), ())]
        middle = len(sizes) - 1
        # With two layers or more between entry and ground the full product would be thousands.
        efs, rounds = (_UPPER_EF, _UPPER_ROUNDS) if middle <= 1 else (_UPPER_EF[1::2], _UPPER_ROUNDS[::2])
        each_ef = [
            _scaled(_ENTRY_EF, self._top_k, sizes[0]),
            *(_scaled(efs, self._top_k, size) for size in sizes[1:]),
        ]
        each_rounds = [(1,), *(rounds for _ in sizes[1:])]  # all of the entry layer is scored, whatever its rounds
        uppers = list(product(product(*each_ef), product(*each_rounds)))
        return sorted(uppers, key=lambda upper: (np.prod(upper[0]) * np.prod(upper[1]), upper))

    def ground_efs(self) -> list[int]:
        """See `Space`."""
        return _ground_efs(self._top_k, self._sizes[-1])

    def params(self, upper: Upper, ground_ef: int) -> SearchParams:
        """See `Space`."""
        return SearchParams(self._top_k, (*upper[0], ground_ef), (*upper[1], _GROUND_ROUNDS))

    def without_rounds(self) -> Iterable[SearchParams]:
        """See `Space`; the upper layers alone find next to nothing."""
        return ()

    def wider(self, params: SearchParams) -> SearchParams:
        """See `Space`."""
        ef = tuple(min(2 * value, size) for value, size in zip(params.ef, self._sizes, strict=True))
        return SearchParams(self._top_k, ef, (*params.rounds[:-1], _GROUND_ROUNDS))

    def around(self, params: SearchParams) -> Iterable[SearchParams]:
        """See `Space`."""
        ground_rounds = (*params.rounds[:-1], _more_rounds(params))
        for layer, (ef, size) in enumerate(zip(params.ef, self._sizes, strict=True)):
            least = self._top_k if layer == len(self._sizes) - 1 else 1
            for value in _steps(ef, least, size):
                yield SearchParams(self._top_k, _with(params.ef, layer, value), ground_rounds)
        for layer in range(1, len(self._sizes) - 1):
            for rounds in (params.rounds[layer] - 1, params.rounds[layer] + 1):
                if rounds >= 0:
                    yield SearchParams(self._top_k, params.ef, _with(ground_rounds, layer, rounds))

    def with_less_light(self, params: SearchParams) -> Iterable[SearchParams]:
        """See `Space`."""
        return ()


class SeedsSpace:
    """Our entry: the number of seeds, and ef and rounds of the ground layer."""

    first_round_depends_on_ef = True

    def __init__(self, graph: HnswGraph, top_k: int) -> None:
        self._top_k = top_k
        self._items = graph.item_count

    def uppers(self) -> list[Upper]:
        """See `Space`."""
        return [((count,), ()) for count in _scaled(_SEEDS, self._top_k, self._items)]

    def ground_efs(self) -> list[int]:
        """See `Space`."""
        return _ground_efs(self._top_k, self._items)

    def params(self, upper: Upper, ground_ef: int) -> SearchParams:
        """See `Space`."""
        seeds = _light_walk(upper[0][0], _LIGHT_EF)
        return SearchParams(self._top_k, (ground_ef,), (_GROUND_ROUNDS,), seeds)

    def without_rounds(self) -> Iterable[SearchParams]:
        """See `Space`; the seeds alone, re-ranked: the cascade, which is best where next to nothing may be scored."""
        for count in _scaled(_SEEDS_ALONE, self._top_k, self._items):
            yield SearchParams(self._top_k, (self._top_k,), (0,), _light_walk(count, _LIGHT_EF))

    def wider(self, params: SearchParams) -> SearchParams:
        """See `Space`."""
        assert params.seeds is not None
        count, ef = (min(2 * value, self._items) for value in (params.seeds.count, params.ef[0]))
        return SearchParams(self._top_k, (ef,), (_GROUND_ROUNDS,), _light_walk(count, _LIGHT_EF))

    def around(self, params: SearchParams) -> Iterable[SearchParams]:
        """See `Space`."""
        assert params.seeds is not None
        more = replace(params, rounds=(_more_rounds(params) if params.rounds[0] else 0,))
        for ef in _steps(params.ef[0], self._top_k, self._items):
            yield replace(more, ef=(ef,))
        for count in _steps(params.seeds.count, 1, self._items):
            yield replace(more, seeds=_light_walk(count, _LIGHT_EF))

    def with_less_light(self, params: SearchParams) -> Iterable[SearchParams]:
        """See `Space`; the cheapest first."""
        assert params.seeds is not None
        for multiple in _LESS_LIGHT:
            yield replace(params, seeds=_light_walk(params.seeds.count, multiple))


def _light_walk(count: int, multiple: float) -> SeedParams:
    return SeedParams(count, round(multiple * count))


def _ground_efs(top_k: int, size: int) -> list[int]:
    return _scaled(_GROUND_EF, top_k, max(size, top_k))


def _scaled(multiples: Sequence[float], top_k: int, most: int) -> list[int]:
    return sorted({min(max(round(multiple * top_k), 1), most) for multiple in multiples})


def _steps(value: int, least: int, most: int) -> Iterable[int]:
    return (min(max(round(value * step), least), most) for step in _FINE_STEPS)


def _more_rounds(params: SearchParams) -> int:
    return min(params.rounds[-1] + 2, _GROUND_ROUNDS)


def _with(values: tuple[int, ...], place: int, value: int) -> tuple[int, ...]:
    return (*values[:place], value, *values[place + 1 :])
