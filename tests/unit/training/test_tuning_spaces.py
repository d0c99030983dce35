"""The settings that a tuning tries stay within what the server allows."""

from __future__ import annotations

from itertools import chain

import pytest
from support.searching import make_graph

from nann.search_requests import SearchBounds
from nann.training.search.tuning_spaces import LayersSpace, SeedsSpace

BOUNDS = SearchBounds(max_top_k=100, max_ef=150, max_rounds=20)
ITEMS = 1000


@pytest.mark.parametrize("space_type", [LayersSpace, SeedsSpace])
@pytest.mark.parametrize("top_k", [10, 100])
def test_no_setting_is_beyond_the_bounds(space_type, top_k):
    levels = [2] * 30 + [1] * 170 + [0] * 800
    graph = make_graph([[[]] * ITEMS] * 3, levels, entry_layer=2)
    space = space_type(graph, top_k, BOUNDS.max_ef)
    coarse = [space.params(upper, ef) for upper in space.uppers() for ef in space.ground_efs()]
    tried = [*coarse, *space.ladder(), *space.without_rounds()]
    widest = max(tried, key=lambda params: params.ef)
    for _ in range(6):
        widest = space.wider(widest)
    tried += [widest, *chain.from_iterable(map(space.around, tried)), *space.around(widest)]
    tried += list(chain.from_iterable(map(space.with_less_light, tried)))
    assert max(params.ef[-1] for params in tried) == BOUNDS.max_ef
    for params in tried:
        BOUNDS.check_defaults(params, 10_000)


def test_without_a_round_there_are_as_many_seeds_as_items_of_a_result():
    space = SeedsSpace(make_graph([[[]] * ITEMS] * 3, [2] * 30 + [1] * 170 + [0] * 800, entry_layer=2), 100, 400)
    tried = list(chain.from_iterable(map(space.around, space.without_rounds())))
    tried += list(chain.from_iterable(map(space.around, tried)))
    assert min(params.seeds.count for params in tried) == 100
