"""The settings that `tuning_search` tries for each entry strategy: a coarse grid, and small steps around a setting."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import product

import numpy as np

from nann.graph import HnswGraph
from nann.search_params import SearchParams, SeedParams

_ENTRY_EF = (0.3, 1.2)
_UPPER_EF = (0.1, 0.2, 0.4, 0.8, 1.6)
_GROUND_EF = (1.0, 1.5, 2.5, 4.0)
_SEEDS = (1.0, 1.5, 2.5, 4.0, 6.0, 10.0, 16.0)
_SEEDS_ALONE = (1.5, 2.0, 3.0, 4.0, 6.0, 10.0, 16.0)
"""Coarse grids of ef and of the number of seeds, in multiples of top_k."""
_SEED_LADDER = ((1, 1.5), (2, 1.5), (4, 2), (8, 3), (16, 4))
_LAYER_LADDER = ((0.5, 1), (1, 1.5), (1, 3), (2, 4))
"""Ladders of a quick tuning in multiples of top_k: number of seeds, or ef above the ground layer; ef of the latter."""
_LADDER_ROUNDS = 3
_UPPER_ROUNDS = (1, 2, 3, 5)
_GROUND_ROUNDS = 8
_FINE_STEPS = (0.7, 0.85, 0.95, 1.1, 1.25)
_LIGHT_EF = 2.0
"""ef of the light walk in multiples of the number of seeds; large, until a smaller one gives equally good seeds."""
_LESS_LIGHT = (1.0, 1.2, 1.5)

Upper = tuple[tuple[int, ...], tuple[int, ...]]
"""The part of a setting above the ground layer: its ef and rounds per layer, or (number of seeds,) and ()."""


class Space(ABC):
    """Settings of one entry strategy, all with the most ground rounds: one walk measures the fewer rounds too."""

    first_round_depends_on_ef: bool
    """Whether the ground layer's ef changes its first round."""

    def __init__(self, graph: HnswGraph, top_k: int, max_ef: int) -> None:
        self._top_k = top_k
        self._max_ef = max_ef
        self._most = min(graph.item_count, max_ef)

    @abstractmethod
    def uppers(self) -> list[Upper]:
        """The coarse grid above the ground layer, smaller settings first."""

    def ground_efs(self) -> list[int]:
        """The coarse grid of the ground layer's ef, ascending."""
        return _scaled(_GROUND_EF, self._top_k, max(self._most, self._top_k))

    @abstractmethod
    def params(self, upper: Upper, ground_ef: int) -> SearchParams:
        """One setting of the grid."""

    @abstractmethod
    def ladder(self) -> list[SearchParams]:
        """The few settings of a quick tuning, cheapest first."""

    def without_rounds(self) -> Iterable[SearchParams]:
        """Settings without a ground round, cheapest first; none if they find next to nothing."""
        return ()

    @abstractmethod
    def wider(self, params: SearchParams) -> SearchParams:
        """The setting with every ef and the number of seeds doubled, at most to the number of items."""

    @abstractmethod
    def around(self, params: SearchParams) -> Iterable[SearchParams]:
        """Settings one small step away, with one value changed."""

    def with_less_light(self, params: SearchParams) -> Iterable[SearchParams]:
        """The setting with cheaper light walks, cheapest first; none if it has no light walk."""
        return ()


class LayersSpace(Space):
    """Entry by the layers, as in the paper: ef and rounds of every layer."""

    first_round_depends_on_ef = False

    def __init__(self, graph: HnswGraph, top_k: int, max_ef: int) -> None:
        super().__init__(graph, top_k, max_ef)
        # The largest ef of each layer, entry layer first.
        self._sizes = [min(size, max_ef) for size in graph.layer_sizes[graph.entry_layer :: -1]]

    def uppers(self) -> list[Upper]:
        """See `Space`."""
        sizes = self._sizes[:-1]
        if not sizes:
            return [((), ())]
        middle = len(sizes) - 1
        # With two or more layers between entry and ground the full product would have thousands of settings.
        efs, rounds = (_UPPER_EF, _UPPER_ROUNDS) if middle <= 1 else (_UPPER_EF[1::2], _UPPER_ROUNDS[::2])
        each_ef = [
            _scaled(_ENTRY_EF, self._top_k, sizes[0]),
            *(_scaled(efs, self._top_k, size) for size in sizes[1:]),
        ]
        each_rounds = [(1,), *(rounds for _ in sizes[1:])]  # the whole entry layer is scored in one round
        uppers = list(product(product(*each_ef), product(*each_rounds)))
        return sorted(uppers, key=lambda upper: (np.prod(upper[0]) * np.prod(upper[1]), upper))

    def ladder(self) -> list[SearchParams]:
        """See `Space`."""
        sizes = self._sizes[:-1]
        rounds = (1, *[_LADDER_ROUNDS] * (len(sizes) - 1))[: len(sizes)]  # the whole entry layer is scored in one round
        steps = []
        for above, ground in _LAYER_LADDER:
            ef = tuple(_scaled((above,), self._top_k, size)[0] for size in sizes)
            steps.append(self.params((ef, rounds), round(ground * self._top_k)))
        return list(dict.fromkeys(steps))

    def params(self, upper: Upper, ground_ef: int) -> SearchParams:
        """See `Space`."""
        return SearchParams(self._top_k, (*upper[0], min(ground_ef, self._max_ef)), (*upper[1], _GROUND_ROUNDS))

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


class SeedsSpace(Space):
    """Entry by seeds: the number of seeds, and ef and rounds of the ground layer."""

    first_round_depends_on_ef = True

    def uppers(self) -> list[Upper]:
        """See `Space`."""
        return [((count,), ()) for count in _scaled(_SEEDS, self._top_k, self._most)]

    def ladder(self) -> list[SearchParams]:
        """See `Space`."""
        steps = []
        for seeds, ground in _SEED_LADDER:
            (count,) = _scaled((seeds,), self._top_k, self._most)
            steps.append(self.params(((count,), ()), round(ground * self._top_k)))
        return list(dict.fromkeys(steps))

    def params(self, upper: Upper, ground_ef: int) -> SearchParams:
        """See `Space`."""
        seeds = self._light_walk(upper[0][0])
        return SearchParams(self._top_k, (min(ground_ef, self._max_ef),), (_GROUND_ROUNDS,), seeds)

    def without_rounds(self) -> Iterable[SearchParams]:
        """See `Space`. This is the cascade: the seeds re-ranked. It is best if hardly anything may be scored."""
        for count in _scaled(_SEEDS_ALONE, self._top_k, self._most):
            yield SearchParams(self._top_k, (self._top_k,), (0,), self._light_walk(count))

    def wider(self, params: SearchParams) -> SearchParams:
        """See `Space`."""
        assert params.seeds is not None
        count, ef = (min(2 * value, self._most) for value in (params.seeds.count, params.ef[0]))
        return SearchParams(self._top_k, (ef,), (_GROUND_ROUNDS,), self._light_walk(count))

    def around(self, params: SearchParams) -> Iterable[SearchParams]:
        """See `Space`."""
        assert params.seeds is not None
        more = replace(params, rounds=(_more_rounds(params) if params.rounds[0] else 0,))
        for ef in _steps(params.ef[0], self._top_k, self._most):
            yield replace(more, ef=(ef,))
        fewest = 1 if params.rounds[0] else min(self._top_k, self._most)  # without a round the seeds are the result
        for count in _steps(params.seeds.count, fewest, self._most):
            yield replace(more, seeds=self._light_walk(count))

    def with_less_light(self, params: SearchParams) -> Iterable[SearchParams]:
        """See `Space`."""
        assert params.seeds is not None
        for multiple in _LESS_LIGHT:
            yield replace(params, seeds=self._light_walk(params.seeds.count, multiple))

    def _light_walk(self, count: int, multiple: float = _LIGHT_EF) -> SeedParams:
        return SeedParams(count, min(round(multiple * count), self._max_ef))


def _scaled(multiples: Sequence[float], top_k: int, most: int) -> list[int]:
    return sorted({min(max(round(multiple * top_k), 1), most) for multiple in multiples})


def _steps(value: int, least: int, most: int) -> Iterable[int]:
    return (min(max(round(value * step), least), most) for step in _FINE_STEPS)


def _more_rounds(params: SearchParams) -> int:
    return min(params.rounds[-1] + 2, _GROUND_ROUNDS)


def _with(values: tuple[int, ...], place: int, value: int) -> tuple[int, ...]:
    return (*values[:place], value, *values[place + 1 :])
