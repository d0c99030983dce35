"""Bundles whose hashes are right and whose contents are nonsense."""

from __future__ import annotations

import numpy as np
import pytest
from support.live_bundle import ITEMS, make_bundle

from nann.bundle import Bundle
from nann.bundle_check import check_searches, check_servable
from nann.errors import BundleError
from nann.search_params import SearchParams, SeedParams


@pytest.fixture
def bundle(tmp_path) -> Bundle:
    return make_bundle(tmp_path / "bundle")


def rewritten(bundle: Bundle, name: str, change) -> Bundle:
    """The bundle with a changed array, and the hash of the changed file."""
    array = np.load(bundle.path / name)
    array = change(array)
    (bundle.path / name).unlink()
    np.save(bundle.path / name, array)
    return Bundle.open(bundle.change(written=[name]).path)


def first_is(value):
    def change(array):
        array[0] = value
        return array

    return change


def test_a_bundle_that_makes_sense(bundle):
    check_servable(bundle)


@pytest.mark.parametrize("first", [0, -1, -7])
def test_ids_that_mean_padding(bundle, first):
    broken = rewritten(bundle, "item_ids.npy", first_is(first))
    with pytest.raises(BundleError, match=rf"item_ids.npy begins with {first}; expected positive ids"):
        check_servable(broken)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_light_vectors_that_are_not_finite(bundle, value):
    broken = rewritten(bundle, "light_vectors.npy", first_is(value))
    with pytest.raises(BundleError, match=r"light_vectors.npy holds NaN or infinity, for item index 0 first"):
        check_servable(broken)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_item_rows_that_are_not_finite(tmp_path, value):
    bundle = make_bundle(tmp_path / "bundle", item_rows=True)
    check_servable(bundle)
    broken = rewritten(bundle, "item_rows.npy", first_is(value))
    with pytest.raises(BundleError, match=r"item_rows.npy holds NaN or infinity, for item index 0 first"):
        check_servable(broken)


@pytest.mark.parametrize("change", [lambda rows: rows[1:], lambda rows: np.ascontiguousarray(rows[:, 1:])])
def test_item_rows_of_another_shape(tmp_path, change):
    broken = rewritten(make_bundle(tmp_path / "bundle", item_rows=True), "item_rows.npy", change)
    with pytest.raises(BundleError, match=r"item_rows.npy has shape \[.*\]; expected \[4000, 17\]; run `nann export`"):
        check_servable(broken)


def test_a_ground_layer_without_links(bundle):
    unlinked = rewritten(bundle, "layer0.indptr.npy", np.zeros_like)
    broken = rewritten(unlinked, "layer0.neighbors.npy", lambda array: array[:0])
    with pytest.raises(BundleError, match=r"4,000 items that levels.npy puts on layer 0 have no neighbours"):
        check_servable(broken)


def test_neighbours_that_are_all_one_item(bundle):
    broken = rewritten(bundle, "layer0.neighbors.npy", np.zeros_like)
    with pytest.raises(BundleError, match=r"no search can reach 3,\d+ of the 4,000 items"):
        check_servable(broken)


def test_levels_that_make_every_item_an_entry_point(bundle):
    top = len(bundle.graph.layers) - 1
    broken = rewritten(bundle, "levels.npy", lambda levels: np.full_like(levels, top))
    assert len(broken.graph.entry_points) == ITEMS
    with pytest.raises(BundleError, match=r"of the 4,000 items that levels.npy puts on layer 1 have no neighbours"):
        check_servable(broken)


@pytest.mark.parametrize(
    "params",
    [
        SearchParams(20, (1, 20), (0, 0)),
        SearchParams(200, (1, 200), (1, 1)),
        SearchParams(20, (20,), (0,), SeedParams(5, 5)),
    ],
)
def test_searches_that_leave_places_empty(bundle, params):
    if params.seeds is None:
        upper = bundle.graph.entry_layer - 1
        params = SearchParams(params.top_k, (1,) * upper + params.ef, (0,) * upper + params.rounds)
    with pytest.raises(BundleError, match=rf"finds \d+ items where top_k is {params.top_k}; raise ef, rounds"):
        check_searches(bundle.index, [params])


def test_a_corpus_smaller_than_top_k_is_searched_whole(bundle):
    everything = SearchParams(ITEMS + 5, (ITEMS + 5,), (4,), SeedParams(ITEMS, ITEMS))
    check_searches(bundle.index, [everything])
