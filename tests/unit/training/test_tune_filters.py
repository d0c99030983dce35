"""`nann tune` for a mix of filters, and for corpora of which all items are scored."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest

from nann import item_sets
from nann.bundle import Bundle
from nann.errors import BundleError, ConfigError, RequestError
from nann.exact_search import exact_search
from nann.metrics import coverage
from nann.search_params import SearchParams
from nann.search_requests import SearchBounds
from nann.training.data.item_columns import catalogue_of
from nann.training.scorers import OnnxScorer
from nann.training.search.evaluate import evaluate_bundle
from nann.training.search.filter_mix import FilterMix
from nann.training.search.ground_rounds import search_by_ground_round
from nann.training.search.measured_users import MeasuredUsers, bundle_users, search_users
from nann.training.search.tune import tune_bundle
from nann.training.search.tuning_trials import Aim

pytestmark = pytest.mark.heavy


@pytest.fixture
def bundle(exported_bundle, tmp_path):
    """A copy that the test may change."""
    return Bundle.open(shutil.copytree(exported_bundle, tmp_path / "bundle"))


@pytest.fixture
def filterable(bundle):
    """The bundle with attributes: a few items are rare, and a third are of each colour."""
    count = bundle.item_count
    catalogue = catalogue_of(
        {"rare": np.arange(count) % 40 == 7, "color": [("red", "green", "blue")[i % 3] for i in range(count)]}, count
    )
    columns, files = catalogue.save(bundle.path)
    return bundle.change(written=files, attributes=columns)


FILTERS = ('color in ("red", "blue")', "rare")


def under(bundle, data, filters):
    """The scorer, and the validation users with their exact top 10 under filters in turn."""
    queries, batch = bundle_users(bundle, data, "validation", None)
    mix, batch = FilterMix.under(filters, bundle, batch)
    scorer = OnnxScorer(bundle.path / "scorer.onnx")
    return scorer, mix, MeasuredUsers.of(scorer, batch, queries, bundle.item_count, 10)


def test_users_take_turns_with_the_filters_and_each_is_reported(data, filterable):
    report = tune_bundle(filterable, data, Aim(0.9), max_share=1.0, entry="seeds", filters=FILTERS)
    parts = report.record["by_filter"]
    assert [(one["filter"], one["users"]) for one in parts] == [(None, 4), (FILTERS[0], 3), (FILTERS[1], 3)]
    assert [one["items_matching"] for one in parts] == [300, 200, 8]
    _, batch = bundle_users(filterable, data, "validation", None)
    scorer = OnnxScorer(filterable.path / "scorer.onnx")
    for place, one in enumerate(parts):
        users = batch[np.arange(place, 10, 3)]
        if one["filter"]:
            allowed = item_sets.invert(filterable.attributes.compile(one["filter"]), 300)
            users = replace(users, blocked=np.tile(allowed, (len(users), 1)))
        exact = exact_search(scorer, users, 300, 10)
        found = search_users(filterable.index, scorer, users, report.params)
        assert one["coverage"] == pytest.approx(coverage(found.items, exact.items))
        assert one["items_scored"] == found.items_scored.mean()
    mean = np.average([one["coverage"] for one in parts], weights=[one["users"] for one in parts])
    assert report.record["coverage"] == pytest.approx(mean)
    assert mean >= 0.9


@pytest.mark.parametrize("ef", [(2, 10), (30, 60)])
def test_one_walk_measures_every_number_of_ground_rounds_under_filters_too(data, filterable, ef):
    scorer, _, measured = under(filterable, data, [*FILTERS, 'color = "green"'])
    found = search_by_ground_round(filterable.index, scorer, measured, SearchParams(10, ef, (1, 4)))
    for place in range(4):
        one = search_users(filterable.index, scorer, measured.batch, SearchParams(10, ef, (1, place + 1)))
        np.testing.assert_array_equal(found.items[place], one.items)
        np.testing.assert_array_equal(found.items_scored[place], one.items_scored)


def test_filters_that_can_not_be_tuned_for(data, bundle, filterable):
    with pytest.raises(ConfigError, match='no item matches the filter color = "mauve"; leave it out, or correct it'):
        tune_bundle(filterable, data, Aim(0.9), filters=['color = "mauve"'])
    with pytest.raises(ConfigError, match=r"got 10 filters for 10 validation users; expected a user for each"):
        tune_bundle(filterable, data, Aim(0.9), filters=["rare"] * 10)
    with pytest.raises(RequestError, match="parameter filter: position 1: got 'size'; expected an attribute"):
        tune_bundle(filterable, data, Aim(0.9), filters=["size = 3"])


def test_all_items_are_scored_where_that_is_the_cheapest(data, bundle):
    report = tune_bundle(bundle, data, Aim(0.98), top_k=250)  # no walk scores fewer than 250 items
    assert report.params == SearchParams(250, (250,), (0,), every_item=True)
    assert (report.record["coverage"], report.record["items_scored"]) == (1, 300)
    tuned = Bundle.open(bundle.path)
    assert tuned.search_params == report.params
    assert tuned.search_by_entry["layers"].entry == "layers"
    measured = evaluate_bundle(tuned, data, split="validation")
    assert (measured.coverage, measured.items_scored) == (1, 300)
    cheap = tune_bundle(bundle, data, Aim(0.3), top_k=10)
    assert cheap.params.entry != "all"
    assert 1.5 * cheap.record["items_scored"] < 300


def test_all_items_are_scored_only_where_a_request_may_ask_for_it(data, bundle):
    small = SearchBounds(1000, 299, 20)
    with pytest.raises(
        ConfigError, match=r'entry is "all"; expected seeds or layers, .* \(all is for at most max_ef items, 299 here\)'
    ):
        tune_bundle(bundle, data, Aim(0.9), entry="all", bounds=small)
    assert tune_bundle(bundle, data, Aim(0.9), entry="all").params.every_item
    with pytest.raises(ConfigError, match=r"every search scores more than 50\.00% of the items"):
        tune_bundle(bundle, data, Aim(0.9), entry="all", max_share=0.5)
    with pytest.raises(BundleError, match="the bundle recommends 300 where the server's max_ef is 299"):
        small.check_defaults(Bundle.open(bundle.path).search_params, 300)
