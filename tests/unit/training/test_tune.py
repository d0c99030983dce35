"""`tune_bundle`: what it recommends in the bundle, records and refuses."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from support.written import lines, saved_figures

from nann.bundle import Bundle, write_manifest
from nann.errors import ConfigError
from nann.metrics import coverage
from nann.reachability import reachable_items
from nann.scorer_check import SCORER_CHECK_FILE
from nann.search_input import UserBatch
from nann.search_params import SearchOptions, SearchParams
from nann.search_requests import SearchBounds
from nann.training.scorers import OnnxScorer
from nann.training.search.checked_users import add_check_of
from nann.training.search.evaluate import evaluate_bundle
from nann.training.search.measured_users import MeasuredUsers, bundle_users, search_users
from nann.training.search.tune import tune_bundle
from nann.training.search.tuning_trials import Aim

pytestmark = pytest.mark.heavy


@pytest.fixture(scope="module")
def exported(data, exported_bundle, tmp_path_factory):
    """With the users on whom engines are compared."""
    copy = shutil.copytree(exported_bundle, tmp_path_factory.mktemp("exported") / "bundle")
    return add_check_of(Bundle.open(copy), data).path


@pytest.fixture
def bundle(exported, tmp_path):
    """A copy that the test may change."""
    return Bundle.open(shutil.copytree(exported, tmp_path / "bundle"))


@pytest.fixture
def users(data, bundle):
    """The scorer, and the validation users with their exact top 10 but without own items."""
    queries, batch = bundle_users(bundle, data, "validation", None)
    scorer, batch = OnnxScorer(bundle.path / "scorer.onnx"), UserBatch(batch.states, None)
    return scorer, MeasuredUsers.of(scorer, batch, queries, bundle.item_count, 10)


def test_the_manifest_recommends_the_pick_and_the_bundle_stays_the_same(data, bundle):
    with saved_figures() as figures:
        report = tune_bundle(bundle, data, Aim(0.9), max_share=1.0)
    tuned = Bundle.open(bundle.path)
    assert tuned.bundle_id == bundle.bundle_id
    assert tuned.identity != bundle.identity, "other defaults are another version to serve"
    assert tuned.search_params == report.params
    assert tuned.search_params.top_k == 10
    record = tuned.notes["tuning"]
    assert record["split"] == "validation"
    assert record["users"] == 10
    assert record["wanted_coverage"] == 0.9
    assert record["coverage"] >= 0.9
    assert record["created"]
    measured = evaluate_bundle(tuned, data, split="validation")
    assert measured.coverage == record["coverage"]
    assert measured.share_scored == record["share_scored"]
    assert (measured.recall_all, measured.recall_retrieval) == (record["recall_all"], record["recall_retrieval"])
    covered = [trial.coverage for trial in report.frontier]
    assert covered == sorted(covered)
    assert report.params in [trial.params for trial in report.frontier]
    assert len(record["frontier"]) == len(covered)
    assert report.plot == bundle.path.with_name("bundle.tuning.png")
    frontier, wanted, picked = lines(figures[report.plot])
    shown = [(100 * trial.share_scored, 100 * trial.coverage) for trial in report.frontier]
    assert [point for point in frontier if point in shown] == shown, "the plot also has what the report thins out"
    assert frontier == sorted(frontier)
    assert [y for _, y in frontier] == sorted(y for _, y in frontier)
    assert {y for _, y in wanted} == {90}
    assert picked == [(100 * record["share_scored"], 100 * record["coverage"])]
    json.dumps(record, allow_nan=False)


def test_a_bundle_without_users_to_check_engines_on_gets_some_and_its_graph_stays(data, bundle):
    before = bundle.change(removed=[SCORER_CHECK_FILE])
    record = tune_bundle(before, data, Aim(0.9), max_share=1.0).record
    after = Bundle.open(bundle.path)
    assert set(after.manifest["files"]) == {*before.manifest["files"], SCORER_CHECK_FILE}
    assert all(after.manifest["files"][name] == entry for name, entry in before.manifest["files"].items())
    assert record.get("repair") is None


def test_test_users_are_not_read(data, bundle):
    clean = tune_bundle(bundle, data, Aim(0.9), max_share=1.0).record
    test = data.target_users("test")
    items = data.behavior_items.copy()
    for user in test:
        items[data.user_first[user] : data.user_end[user]] = -9
    targets = {**data.user_targets, "test": np.full((data.user_count, 2), -9)}
    garbage = replace(data, behavior_items=items, user_targets=targets)
    dirty = tune_bundle(Bundle.open(bundle.path), garbage, Aim(0.9), max_share=1.0).record
    assert {**clean, "created": "", "seconds": 0} == {**dirty, "created": "", "seconds": 0}


def test_top_k_users_and_plot_can_be_chosen(data, bundle, tmp_path):
    report = tune_bundle(
        bundle, data, Aim(0.8), top_k=5, users=4, max_share=1.0, plot=tmp_path / "plots" / "frontier.png"
    )
    assert report.params.top_k == 5
    assert report.record["users"] == 4
    assert (tmp_path / "plots" / "frontier.png").is_file()


def test_a_coverage_out_of_reach_is_refused_with_the_best_found(data, bundle, users):
    scorer, measured = users
    batch, exact = measured.batch, measured.exact
    cheap = search_users(bundle.index, scorer, batch, SearchParams(10, (3, 10), (1, 1)))
    assert coverage(cheap.items, exact) < 1
    manifest = (bundle.path / "manifest.json").read_bytes()
    with pytest.raises(
        ConfigError, match=r"at most \d+\.\d% of the items reaches coverage 100\.00% on 10 .* best found"
    ):
        tune_bundle(bundle, data, Aim(1.0), max_share=1.01 * cheap.items_scored.mean() / bundle.item_count)
    with pytest.raises(ConfigError, match=r"every search scores more than 0\.10% of the items"):
        tune_bundle(bundle, data, Aim(0.9), max_share=0.001)
    assert (bundle.path / "manifest.json").read_bytes() == manifest


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"wanted": Aim(0)}, "coverage is 0; expected a fraction above 0 and at most 1"),
        ({"wanted": Aim(98)}, "coverage is 98; expected a fraction above 0 and at most 1"),
        (
            {"wanted": Aim(recall_delta=-0.1)},
            r"recall_delta is -0\.1; expected a fraction from 0 to below 1, as in 0\.005",
        ),
        ({"wanted": Aim(recall_delta=1)}, "recall_delta is 1; expected a fraction from 0 to below 1"),
        ({"wanted": Aim(0.9), "max_share": 0}, "max_share is 0; expected a fraction above 0"),
        ({"wanted": Aim(0.9), "top_k": 301}, "top_k is 301; expected 1 to 300"),
        (
            {"wanted": Aim(0.9), "top_k": 250, "bounds": SearchBounds(1000, 200, 20)},
            "top_k is 250, and the server returns at most 200 items",
        ),
    ],
)
def test_options_that_make_no_sense_are_refused(data, bundle, options, message):
    with pytest.raises(ConfigError, match=message):
        tune_bundle(bundle, data, **options)


def test_repair_goes_into_the_bundle_with_what_it_changed(data, bundle, users):
    # Cut all links to the item that is in most users' exact top lists.
    exact = users[1].exact
    ground = bundle.graph.layers[0]
    below = np.flatnonzero(bundle.graph.levels == 0)
    lost = below[np.bincount(exact.reshape(-1), minlength=bundle.item_count)[below].argmax()]
    kept = ground.neighbors != lost
    owners = np.repeat(np.arange(bundle.item_count), np.diff(ground.indptr))[kept]
    indptr = np.append(0, np.cumsum(np.bincount(owners, minlength=bundle.item_count))).astype(np.int32)
    neighbors = np.array(ground.neighbors[kept])
    for name, array in (("layer0.indptr.npy", indptr), ("layer0.neighbors.npy", neighbors)):
        (bundle.path / name).unlink()
        np.save(bundle.path / name, array)
    write_manifest(bundle.path, bundle.manifest, bundle.manifest["files"])
    broken = Bundle.open(bundle.path)
    with pytest.raises(ConfigError, match=r"1 items have no link to them or can't be reached: try --repair"):
        tune_bundle(broken, data, Aim(1.0), max_share=1.0, entry="layers")
    assert Bundle.open(bundle.path).bundle_id == broken.bundle_id
    report = tune_bundle(broken, data, Aim(1.0), max_share=1.0, entry="layers", repair=True)
    repair = report.record["repair"]
    assert report.record["unreachable_items"] == 1
    assert repair["items_linked"] == 1
    assert repair["links_added"] == 4
    assert repair["unreachable_items_left"] == 0
    assert repair["before"]["coverage"] < report.record["coverage"] == 1
    opened = Bundle.open(bundle.path)  # verifies the hashes
    assert opened.bundle_id != broken.bundle_id
    assert reachable_items(opened.graph).all()
    assert opened.manifest["graph"]["mean_ground_degree"] == round(
        len(opened.graph.layers[0].neighbors) / bundle.item_count, 2
    )
    assert not list(bundle.path.glob(".*"))


def test_the_cheaper_entry_is_recommended(data, bundle):
    costs = {}
    for entry in ("layers", "seeds"):
        alone = tune_bundle(bundle, data, Aim(0.9), max_share=1.0, entry=entry)
        tuned = Bundle.open(bundle.path)
        assert tuned.search_by_entry[entry] == alone.params
        measured = evaluate_bundle(tuned, data, split="validation", options=SearchOptions(entry=entry))
        assert (measured.ef, measured.rounds, measured.seeds) == (
            alone.params.ef, alone.params.rounds, alone.params.seeds,
        )  # fmt: skip
        assert measured.coverage >= 0.9
        costs[entry] = measured.items_scored
    report = tune_bundle(bundle, data, Aim(0.9), max_share=1.0)
    assert report.params.entry == min(costs, key=costs.get)
    assert report.record["items_scored"] == min(costs.values())


def test_one_entry_can_be_chosen(data, bundle):
    report = tune_bundle(bundle, data, Aim(0.8), max_share=1.0, entry="seeds")
    assert set(report.record["by_entry"]) == {"seeds"}
    assert report.params.entry == "seeds"
    assert Bundle.open(bundle.path).search_by_entry["layers"].ef == (10, 40)  # as the index recommended
    with pytest.raises(ConfigError, match='entry is "top"; expected seeds or layers or all, which this bundle can'):
        tune_bundle(bundle, data, Aim(0.8), entry="top")
