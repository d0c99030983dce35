"""The search that a fresh bundle recommends, and tuning for recall."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest

from nann.bundle import Bundle
from nann.bundle_check import check_servable
from nann.errors import ConfigError
from nann.metrics import coverage
from nann.scorer_check import CHECKED_ITEMS, CHECKED_USERS, ScorerCheck
from nann.search_params import SearchOptions, SearchParams
from nann.search_requests import SERVED_BOUNDS
from nann.training.checkpoint import Checkpoint
from nann.training.scorers import OnnxScorer
from nann.training.search import default_search
from nann.training.search.default_search import recommend_search
from nann.training.search.evaluate import evaluate_bundle
from nann.training.search.measured_users import MeasuredUsers, bundle_users
from nann.training.search.pipeline import export_checkpoint, index_checkpoint
from nann.training.search.tune import tune_bundle
from nann.training.search.tuning_search import tune_search
from nann.training.search.tuning_spaces import LayersSpace, SeedsSpace
from nann.training.search.tuning_trials import Aim, Trial
from nann.training.train import train

pytestmark = pytest.mark.heavy

MAX_EF = SERVED_BOUNDS.max_ef


def exported(data, config, folder, steps):
    """The folder of a bundle without a measured search."""
    optimization = config.optimization.model_copy(update={"steps": steps})
    trained = train(data, config.model_copy(update={"optimization": optimization}), folder / "train")
    checkpoint = Checkpoint.load(trained.checkpoint)
    bundle = index_checkpoint(checkpoint, data, folder / "bundle", threads=1)
    export_checkpoint(checkpoint, data, bundle)
    return bundle.path


@pytest.fixture(scope="module")
def made(many_users, config, tmp_path_factory):
    """Trained long enough to find some of what 100 validation users did next."""
    return exported(many_users, config, tmp_path_factory.mktemp("made"), 100)


@pytest.fixture
def bundle(made, tmp_path):
    return Bundle.open(shutil.copytree(made, tmp_path / "bundle"))


@pytest.fixture
def data(many_users):
    return many_users


def users_of(data, bundle, count):
    """The scorer, and validation users with their exact top 10."""
    queries, batch = bundle_users(bundle, data, "validation", count)
    scorer = OnnxScorer(bundle.path / "scorer.onnx")
    return scorer, MeasuredUsers.of(scorer, batch, queries, bundle.item_count, 10)


@pytest.fixture
def users(data, bundle):
    return users_of(data, bundle, 32)


def steps_of(space):
    """Every setting that one climb of a ladder measures."""
    for most in space.ladder():
        for rounds in range(1, most.rounds[-1] + 1):
            yield replace(most, rounds=(*most.rounds[:-1], rounds))


def test_the_cheapest_step_that_covers_enough_is_recommended(data, bundle, users, monkeypatch):
    monkeypatch.setattr(default_search, "MAX_SHARE", 1.0)  # the corpus is tiny
    scorer, measured = users
    record = recommend_search(bundle, data)
    opened = Bundle.open(bundle.path)
    assert opened.notes["tuning"] == record
    assert (record["by"], record["users"], record["targets"]) == ("nann export", 32, 32)
    spaces = {"layers": LayersSpace(bundle.graph, 10, MAX_EF), "seeds": SeedsSpace(bundle.graph, 10, MAX_EF)}
    cheapest = {}
    for entry, params in opened.search_by_entry.items():
        costs = {}
        for step in steps_of(spaces[entry]):
            found = measured.search(bundle.index, scorer, step)
            if coverage(found.items, measured.exact) >= default_search.AIM.coverage:
                costs[step] = found.items_scored.mean()
        assert costs[params] == min(costs.values())
        cheapest[entry] = costs[params]
    assert opened.search_params.entry == min(cheapest, key=cheapest.get)
    assert min(cheapest.values()) < bundle.item_count / 1.5
    evaluated = evaluate_bundle(opened, data, split="validation", users=32)
    assert (evaluated.coverage, evaluated.share_scored) == (record["coverage"], record["share_scored"])


def test_the_bundle_gets_users_with_their_exact_best_items(data, bundle, users):
    scorer, measured = users
    tune_bundle(bundle, data, Aim(0.6), max_share=1.0)
    tuned = ScorerCheck.load(bundle.path)
    recommend_search(Bundle.open(bundle.path), data)
    for check in (tuned, ScorerCheck.load(Bundle.open(bundle.path).path)):
        assert check.candidates.shape == (CHECKED_USERS, min(CHECKED_ITEMS, bundle.item_count))
        np.testing.assert_array_equal(check.candidates[:, :10], measured.exact[:CHECKED_USERS])
        known = check.candidates >= 0
        expected = scorer.score(check.user_states, np.maximum(check.candidates, 0))
        np.testing.assert_allclose(check.scores[known], expected[known], rtol=1e-5, atol=1e-6)
        assert check.agreement(check.scores) == 1


def test_the_best_step_is_recommended_if_none_covers_enough(data, bundle, users, monkeypatch):
    monkeypatch.setattr(default_search, "AIM", Aim(2.0))
    monkeypatch.setattr(default_search, "MAX_SHARE", 0.5)
    monkeypatch.setattr(default_search, "SERVED_BOUNDS", replace(SERVED_BOUNDS, max_ef=bundle.item_count - 1))
    scorer, measured = users
    record = recommend_search(bundle, data)
    costs = [measured.search(bundle.index, scorer, step) for step in steps_of(SeedsSpace(bundle.graph, 10, MAX_EF))]
    affordable = [found for found in costs if found.items_scored.mean() <= 0.5 * bundle.item_count]
    best = max(coverage(found.items, measured.exact) for found in affordable)
    assert record["coverage"] >= best
    assert record["share_scored"] <= 0.5


def test_all_items_are_scored_where_no_search_within_a_quarter_covers_enough(data, bundle, users, monkeypatch):
    scorer, measured = users
    found = [measured.search(bundle.index, scorer, step) for step in steps_of(SeedsSpace(bundle.graph, 10, MAX_EF))]
    least = min(one.items_scored.mean() for one in found) / bundle.item_count
    monkeypatch.setattr(default_search, "AIM", Aim(1.0))
    monkeypatch.setattr(default_search, "MAX_SHARE", 1.01 * least)
    record = recommend_search(bundle, data)
    opened = Bundle.open(bundle.path)
    assert opened.search_params == SearchParams(10, (10,), (0,), every_item=True)
    assert (record["coverage"], record["share_scored"]) == (1, 1)
    assert {"seeds", "layers"} <= opened.search_by_entry.keys()


def test_a_corpus_too_small_for_the_limit_is_searched_without_it(data, bundle, monkeypatch):
    monkeypatch.setattr(default_search, "MAX_SHARE", 0.001)
    record = recommend_search(bundle, data)
    assert record["max_share"] == 1
    assert record["coverage"] >= default_search.AIM.coverage
    assert record["share_scored"] > 0.001


def test_a_bundle_of_few_items_can_be_served(data, config, tmp_path, monkeypatch):
    """No search within the share finds top_k items: to recommend one would leave places empty."""
    monkeypatch.setattr(default_search, "MAX_SHARE", 0.45)
    search = config.search.model_copy(update={"top_k": 150, "ef": (150, 300), "rounds": (1, 4)})
    index = config.index.model_copy(update={"m": 64, "ef_construction": 10})  # few items on the upper layer, few links
    config = config.model_copy(update={"search": search, "index": index})
    bundle = Bundle.open(exported(data, config, tmp_path, 1))
    assert bundle.item_count == 2 * 150
    assert recommend_search(bundle, data)["max_share"] == 0.45
    opened = Bundle.open(bundle.path)
    check_servable(opened)
    assert opened.search_by_entry["layers"] == bundle.search_by_entry["layers"]


def test_without_validation_users_the_configured_search_stays(data, bundle):
    nobody = replace(data, user_targets={**data.user_targets, "validation": np.full((data.user_count, 2), -1)})
    assert recommend_search(bundle, nobody) is None
    assert Bundle.open(bundle.path).manifest == bundle.manifest


def test_a_tuned_bundle_keeps_its_search(data, bundle):
    tuned = tune_bundle(bundle, data, Aim(0.6), max_share=1.0)
    record = recommend_search(Bundle.open(bundle.path), data)
    assert record["by"] == "nann tune"
    assert Bundle.open(bundle.path).search_params == tuned.params


@pytest.mark.parametrize("aim", [Aim(recall_delta=0.05), Aim(coverage=0.9, recall_delta=0.3)])
def test_the_pick_reaches_the_recall_and_no_trial_is_cheaper(bundle, users, aim):
    scorer, measured = users
    assert measured.recall_all > 0
    found = np.mean([np.isin(measured.queries.targets_of(row), measured.exact[row]).sum() for row in range(32)]) * 32
    tuning = tune_search(bundle.index, scorer, measured, aim, entry="seeds")
    assert tuning.best is not None
    again = measured.measure(bundle.index, scorer, tuning.best.params)
    assert (again["recall_delta"], again["coverage"]) == (tuning.best.recall_delta, tuning.best.coverage)

    def reaches(trial):
        error = np.sqrt(trial.coverage * (1 - trial.coverage) / found)
        return max(trial.recall_delta, 0) + error <= aim.recall_delta and trial.coverage >= aim.coverage

    assert reaches(tuning.best)
    cheapest = min(trial.items_scored for trial in tuning.trials if reaches(trial))
    assert tuning.best.items_scored <= 1.01 * cheapest


def test_what_a_trial_lacks():
    trial = Trial(None, 0.5, 0.25, 0.125, 10, 0.1)
    assert Aim(0.75).shortfall(trial) == 0.25
    assert Aim(recall_delta=0.125).shortfall(trial) == 0.25
    assert Aim(0.5, 0.375).shortfall(trial) == 0
    assert Aim(recall_delta=0.125).shortfall(replace(trial, recall_delta=None)) == 0
    assert Aim(recall_delta=0.0).shortfall(replace(trial, recall_delta=-0.5)) == 0.125, "a gain is chance too"
    assert trial.reached == "coverage 50.00%, recall-Delta 25.00% ±12.50%"
    assert (str(Aim(0.98)), str(Aim(recall_delta=0.005))) == ("coverage 98.00%", "recall-Delta 0.50% or less")


def test_a_bundle_is_tuned_for_recall(data, bundle):
    report = tune_bundle(bundle, data, Aim(recall_delta=0.1), max_share=1.0)
    record = Bundle.open(bundle.path).notes["tuning"]
    assert (record["wanted_coverage"], record["wanted_recall_delta"]) == (None, 0.1)
    assert record["recall_delta"] <= 0.1
    assert record["targets_found_by_all"] == pytest.approx(record["recall_all"] * record["targets"])
    assert record["seconds"] > 0
    measured = evaluate_bundle(Bundle.open(bundle.path), data, SearchOptions(), split="validation")
    assert measured.recall_delta == record["recall_delta"]
    assert report.params == Bundle.open(bundle.path).search_params


def test_without_recall_there_is_nothing_to_aim_at(data, bundle):
    with pytest.raises(ConfigError, match=r"none of the 1 items that the 1 validation users met next.*aim at coverage"):
        tune_bundle(bundle, data, Aim(recall_delta=0.01), top_k=1, users=1, max_share=1.0)


def test_the_time_is_limited(data, bundle, users):
    few = replace(SERVED_BOUNDS, max_ef=bundle.item_count - 1)  # so that to score all is no choice
    with pytest.raises(ConfigError, match=r"no search was tried within 0 seconds.*raise --seconds or lower --users"):
        tune_bundle(bundle, data, Aim(0.9), seconds=0, bounds=few)
    scorer, measured = users
    assert tune_search(bundle.index, scorer, measured, Aim(0.9), until=0.0).trials == ()
    whole = tune_bundle(bundle, data, Aim(0.9), max_share=1.0, seconds=1000)
    assert whole.record["coverage"] >= 0.9


def test_history_is_left_out_of_what_is_tuned_and_evaluated(leave_one_out, config, tmp_path):
    made = exported(leave_one_out, config, tmp_path, 30)
    tune_bundle(Bundle.open(made), leave_one_out, Aim(0.95), max_share=1.0)
    tuned = Bundle.open(made)
    measured = evaluate_bundle(tuned, leave_one_out, split="validation")
    assert measured.coverage == tuned.notes["tuning"]["coverage"] >= 0.95
    assert (
        evaluate_bundle(tuned, leave_one_out, SearchOptions(entry="layers", ef=(300, 300), rounds=(1, 50))).coverage
        == 1
    )
