"""The searches that a fresh bundle recommends, and what was asked of it."""

from __future__ import annotations

import pytest

from nann.errors import BundleError, ConfigError, RequestError
from nann.search_params import SearchOptions, SearchParams, SeedParams
from nann.search_requests import SERVED_BOUNDS
from nann.training.config import SearchConfig
from nann.training.search.recommended import fitted, recommended_searches

SEARCH = SearchConfig(top_k=50, ef=(10, 30, 100), rounds=(1, 3, 4))
LAYERS = SearchParams(50, (10, 30, 100), (1, 3, 4))
SEEDED = SearchParams(50, (100,), (4,), SeedParams(200, 200))


def recommended(light=False, items=10_000, **asked):
    return recommended_searches(SEARCH, SearchOptions(**asked), items, light=light, bounds=SERVED_BOUNDS)


def test_the_configuration_is_for_layers_and_seeds_come_first():
    assert recommended() == [LAYERS]
    assert recommended(light=True) == [SEEDED, LAYERS]
    assert recommended(light=True, entry="layers") == [LAYERS, SEEDED]


def test_what_is_asked_for_is_the_default_and_a_top_k_is_for_all():
    assert recommended(ef=(20, 40, 200), rounds=(1, 1, 3)) == [SearchParams(50, (20, 40, 200), (1, 1, 3))]
    seeded = SearchParams(20, (60,), (4,), SeedParams(80, 90))
    assert recommended(light=True, top_k=20, ef=(60,), seed_ef=90) == [
        seeded,
        SearchParams(20, (10, 30, 100), (1, 3, 4)),
    ]
    assert recommended(top_k=200) == [SearchParams(200, (10, 30, 200), (1, 3, 4))]


def test_of_a_corpus_in_which_all_items_would_be_seeds_all_are_scored():
    every, seeds = SearchParams(50, (50,), (0,), every_item=True), SearchParams(50, (100,), (4,), SeedParams(200, 200))
    assert recommended(light=True, items=200) == [every, seeds, LAYERS]
    assert recommended(light=True, items=201) == [seeds, LAYERS]
    assert recommended(light=True, items=200, entry="seeds") == [seeds, LAYERS]
    assert recommended(light=True, items=200, ef=(120,))[0].ef == (120,)
    assert recommended(items=200) == [LAYERS]


@pytest.mark.parametrize(
    ("asked", "error", "message"),
    [
        ({"items": 49}, ConfigError, "the data set has 49 items and top_k is 50"),
        ({"top_k": 101, "ef": (1, 1, 100)}, RequestError, "ef of the ground layer is 100 and top_k 101"),
        ({"entry": "seeds"}, RequestError, "this bundle's model has no light score"),
        ({"light": True, "ef": (10, 30, 100)}, RequestError, "parameter ef is .*; expected one whole number"),
        ({"ef": (10, 30, 8960)}, BundleError, "recommends 8960 where the server's max_ef is 4000; recommend less"),
        ({"light": True, "seed_ef": 6080}, BundleError, "recommends 6080 where the server's max_ef is 4000"),
        ({"top_k": 1001}, BundleError, "recommends 1001 where the server's max_top_k is 1000"),
    ],
)
def test_what_can_not_be_recommended(asked, error, message):
    with pytest.raises(error, match=message):
        recommended(**asked)


def test_a_graph_may_have_fewer_layers_and_not_more():
    assert fitted(LAYERS, 1) == SearchParams(50, (30, 100), (3, 4))
    assert fitted(SEEDED, 2) == SEEDED
    with pytest.raises(ConfigError, match=r"search.ef has 3 values and the graph 4 layers; give one value per layer"):
        fitted(LAYERS, 3)
