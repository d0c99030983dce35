"""The study of items that training never saw: its lists against a plain ranking, and its text against its numbers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from support.study_checks import check_study

from nann.errors import ConfigError
from nann.training.checkpoint import build_model
from nann.training.config import TrainingConfig
from nann.training.studies import fresh
from nann.training.studies.execute import run_studies
from nann.training.studies.measures.fresh_items import PLACES, FreshItems
from nann.training.studies.runs import Runs

TOP_K = 20


@pytest.fixture(scope="module")
def late(study_data):
    """The data set, where a fifth of the items came after the training."""
    counts = study_data.train_counts.copy()
    counts[::5] = 0
    return replace(study_data, train_counts=counts)


@pytest.fixture(scope="module")
def items(late):
    return FreshItems(late, late.queries("test", 8, 12), TOP_K)


@pytest.fixture(scope="module")
def model(late):
    torch.manual_seed(0)
    shape = {"architecture": "kernel", "sequence_length": 8, "item_layers": (12,), "id_dropout": 0.2}
    model = build_model(TrainingConfig(model=shape), late).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model


KINDS = {"recall_new": (True,), "recall_old": (False,), "recall": (True, False)}


def share_found(items, lists, kinds, error=0.0):
    """Recall of the answers that are new, are not, or both, user by user; `error` is how many of them may differ."""
    shares = []
    for user, listed in enumerate(lists):
        answers = [item for item in items.queries.targets_of(user) if items.new[item] in kinds]
        if answers:
            shares.append(np.isin(answers, listed).mean())
    return pytest.approx(np.mean(shares), abs=1e-6 + error / len(shares))


@torch.inference_mode()
def test_lists_are_those_of_a_plain_ranking(items, model):
    every = torch.arange(len(items.new))
    vectors = model.item_vectors(every)
    measured = items.measure(model, {"own": vectors[torch.from_numpy(items.new)]})
    queries = items.queries
    scores = model(torch.from_numpy(queries.behaviors), torch.from_numpy(queries.profiles), every[None]).numpy()
    places = {entry["boost"]: entry for entry in measured["own"]["boosted"]}
    for boost, entry in {0.0: measured["own"], **places}.items():
        lists = np.argsort(-(scores + boost * items.new), axis=1)[:, :TOP_K]
        assert entry["listed"] == pytest.approx(items.new[lists].mean(), abs=0.01 * (boost != 0))
        for name, kinds in KINDS.items():
            # A boost is the one at which an item just gets a place: rounding may decide.
            assert entry[name] == share_found(items, lists, kinds, float(boost != 0))
    np.testing.assert_allclose([each["listed"] for each in places.values()], PLACES, atol=0.005)
    alone, without = (np.argsort(-np.where(kept, scores, -np.inf), axis=1) for kept in (items.new, ~items.new))
    assert measured["own"]["recall_alone"] == share_found(items, alone[:, :TOP_K], (True,))
    chances = np.exp(scores)
    shares = chances[:, items.new].sum(axis=1) / chances.sum(axis=1)
    assert measured["own"]["probability"] == pytest.approx(shares.mean(), rel=1e-4)
    gaps = scores[:, items.new].max(axis=1) - np.sort(scores[:, ~items.new], axis=1)[:, -TOP_K]
    assert measured["own"]["best"] == pytest.approx(np.exp(gaps.mean()), rel=1e-4)
    assert measured["without"].keys() == {"recall", "recall_old"}
    for name, found in measured["without"].items():
        assert found == share_found(items, without[:, :TOP_K], KINDS[name])


def test_a_category_mean_is_that_of_items_that_training_saw(items):
    vectors, categories = torch.randn(items.data.item_count, 3), items.data.item_categories
    for item, found in zip(np.flatnonzero(items.new), items.category_means(vectors), strict=True):
        same = (categories == categories[item]) & ~items.new
        np.testing.assert_allclose(found, vectors[torch.from_numpy(same)].mean(dim=0), rtol=1e-5, atol=1e-6)


def test_a_category_of_new_items_only_has_the_mean_of_all(items):
    categories = items.data.item_categories.copy()
    categories[0] = items.data.category_count
    data = replace(items.data, item_categories=categories, category_labels=(*items.data.category_labels, "other"))
    vectors = torch.randn(data.item_count, 3)
    expected = vectors[torch.from_numpy(~items.new)].mean(dim=0)
    torch.testing.assert_close(replace(items, data=data).category_means(vectors)[0], expected)


@pytest.mark.heavy
def test_a_run_measures_both_forms_and_its_text_shows_the_numbers(late, study_setup, tmp_path):
    settings = replace(study_setup, worth=replace(study_setup.worth, steps=6))
    lines = []
    runs = Runs(late, tmp_path / "cache", settings, lines.append)
    body = run_studies([fresh.STUDY], runs, settings, tmp_path / "out", command="nann experiments --only fresh")
    result = body["studies"]["fresh"]["result"]
    check_study(fresh.STUDY, result, tmp_path)
    one = result["log"]
    assert body["fresh"]["log"]["methods"] == one["methods"]
    assert (one["steps"], one["new_items"]) == (6, int((late.train_counts == 0).sum()))
    assert one["answers"]["new"] + one["answers"]["old"] == len(late.queries("test", 8, 30).target_items)
    encoder = one["methods"]["encoder"]
    assert [each["seed"] for each in encoder["by_seed"]] == list(settings.seeds)
    assert encoder["recall_alone"] == pytest.approx(np.mean([each["recall_alone"] for each in encoder["by_seed"]]))
    assert len([line for line in lines if "training" in line]) == 2 * len(settings.seeds)
    text, plain, dropout = (fresh.STUDY.markdown(result), *(one["methods"][f"without_{form}"] for form in fresh.FORMS))
    assert f"recall of all answers by {100 * (encoder['recall'] - plain['recall']):+.2f} points" in text
    assert f"recall of the other items by {100 * (dropout['recall_old'] - plain['recall_old']):+.2f} points" in text
    assert f"give them {100 * encoder['probability']:.2f}% of the probability" in text
    assert f"best new item is {encoder['best']:.2f} times as likely" in text
    assert f"a random list of {one['top_k']} holds {min(100, 100 * one['top_k'] / one['new_items']):.2f}%" in text
    before = len(lines)
    assert fresh.run(runs, settings)["methods"] == one["methods"]
    assert lines[before:] == []


def test_it_needs_answers_that_training_never_saw(late, study_setup, tmp_path):
    seen = replace(late, train_counts=np.maximum(late.train_counts, 1))
    with pytest.raises(ConfigError, match=r"have 0 answers that training never saw, and .* --protocol time-split"):
        fresh.run(Runs(seen, tmp_path, study_setup), study_setup)
