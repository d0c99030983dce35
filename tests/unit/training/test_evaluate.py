"""`evaluate_bundle` against the exhaustive lists, also under conditions, and what it refuses."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest

from nann.bundle import Bundle
from nann.errors import BundleError, ConfigError, DataError, RequestError
from nann.exact_search import exact_search
from nann.filters import NamedFilters
from nann.search_input import UserBatch
from nann.search_params import SearchOptions
from nann.training.checkpoint import Checkpoint
from nann.training.data.item_columns import catalogue_of
from nann.training.export.serving_modules import serving_modules
from nann.training.scorers import TorchScorer, encode_users_torch
from nann.training.search.evaluate import evaluate_bundle, note_evaluation
from nann.training.search.pipeline import export_checkpoint, index_checkpoint
from nann.training.train import train

pytestmark = pytest.mark.heavy


@pytest.fixture(scope="module")
def checkpoint(data, config, tmp_path_factory):
    config = config.model_copy(update={"optimization": config.optimization.model_copy(update={"steps": 200})})
    return Checkpoint.load(train(data, config, tmp_path_factory.mktemp("train")).checkpoint)


@pytest.fixture(scope="module")
def exported(data, checkpoint, tmp_path_factory):
    bundle = index_checkpoint(checkpoint, data, tmp_path_factory.mktemp("exported") / "bundle", threads=1)
    export_checkpoint(checkpoint, data, bundle)
    return Bundle.open(bundle.path)


def test_evaluation_of_a_generous_search_is_the_exhaustive_one(data, checkpoint, exported):
    result = evaluate_bundle(exported, data, SearchOptions(ef=(300, 300), rounds=(1, 50), entry="layers"))
    assert result.coverage == 1
    assert result.recall_all > 0.1  # 10 of 300 by chance: 0.03
    assert result.recall_retrieval == result.recall_all
    assert result.recall_delta == 0
    assert result.users == 20
    note_evaluation(exported, result)
    assert exported.notes["metrics"]["test"]["recall_all"] == result.recall_all
    # recall-all from first principles
    queries = data.queries("test", 8)
    user_encoder, scorer = serving_modules(checkpoint.restore(data))
    states = encode_users_torch(user_encoder, queries.behaviors, queries.profiles)
    top = exact_search(TorchScorer(scorer), UserBatch(states, queries.behaviors), data.item_count, 10).items
    hits = [np.isin(queries.targets_of(q), top[q]).mean() for q in range(20)]
    assert result.recall_all == pytest.approx(np.mean(hits))


@pytest.fixture
def filterable(exported, tmp_path):
    """The bundle with attributes and a named filter."""
    copy = Bundle.open(shutil.copytree(exported.path, tmp_path / "copy"))
    columns, files = catalogue_of({"odd": [item % 2 == 1 for item in range(copy.item_count)]}, copy.item_count).save(
        copy.path
    )
    return copy.change(written=files, attributes=columns, filters={"even": "not odd"})


GENEROUS = {"ef": (300, 300), "rounds": (1, 50), "entry": "layers"}


@pytest.mark.parametrize(
    ("conditions", "odd"),
    [
        ({"exclude_history": True}, (False, True)),
        ({"filter": "odd"}, (True,)),
        ({"exclude_history": True, "filter_name": "even"}, (False,)),
    ],
    ids=str,
)
def test_evaluation_under_conditions_is_against_the_exact_list_under_them(
    data, checkpoint, exported, filterable, conditions, odd
):
    result = evaluate_bundle(filterable, data, SearchOptions(**GENEROUS, **conditions))
    assert (result.coverage, result.conditions) == (1, conditions)
    queries = data.queries("test", 8)
    user_encoder, scorer = serving_modules(checkpoint.restore(data))
    states = encode_users_torch(user_encoder, queries.behaviors, queries.profiles)
    every = np.tile(np.arange(data.item_count, dtype=np.int32), (len(states), 1))
    scores = TorchScorer(scorer).score(states, every)
    scores[~np.isin(every % 2 == 1, odd)] = -np.inf
    if conditions.get("exclude_history"):
        for row, own in zip(scores, queries.behaviors, strict=True):
            row[own[own != -1]] = -np.inf
    top = np.argsort(-scores, axis=1, kind="stable")[:, :10]
    assert result.recall_all == pytest.approx(
        np.mean([np.isin(queries.targets_of(q), top[q]).mean() for q in range(20)])
    )
    assert result.items_matching == np.isfinite(scores).sum(axis=1).mean()
    before = filterable.notes.get("metrics")
    note_evaluation(filterable, result)
    assert filterable.notes.get("metrics") == before, "recall under conditions is another figure"


def test_evaluation_under_an_operators_filter(data, filterable, tmp_path):
    operator = NamedFilters(tmp_path / "filters")
    operator.set("odd_ones", "odd")
    result = evaluate_bundle(filterable, data, SearchOptions(**GENEROUS, filter_name="odd_ones"), operator=operator)
    assert (result.coverage, result.items_matching) == (1, filterable.item_count // 2)


def test_evaluation_under_conditions_that_it_can_not_have(data, exported, filterable):
    with pytest.raises(RequestError, match="got 'odd'; expected an attribute of the items: category"):
        evaluate_bundle(exported, data, SearchOptions(filter="odd"))
    with pytest.raises(RequestError, match="filter_name is 'x'; expected one of: even"):
        evaluate_bundle(filterable, data, SearchOptions(filter_name="x"))
    with pytest.raises(ConfigError, match="the conditions allow 20 of 20 users no item; ask for less"):
        evaluate_bundle(filterable, data, SearchOptions(filter="odd", filter_name="even"))


def test_evaluation_says_what_is_missing(data, checkpoint, exported, tmp_path):
    indexed = index_checkpoint(checkpoint, data, tmp_path / "bundle", threads=1)
    with pytest.raises(BundleError, match=r"lacks user_encoder\.onnx and scorer\.onnx; run `nann export`"):
        evaluate_bundle(indexed, data)
    with pytest.raises(ConfigError, match="expected validation or test"):
        evaluate_bundle(exported, data, split="train")
    other = replace(data, item_ids=data.item_ids + 1)
    with pytest.raises(DataError, match="use the data set the bundle was made from"):
        evaluate_bundle(exported, other)


def test_evaluation_on_another_split_is_marked(data, exported):
    """A user that trained is tested on: the same items, and other training rows."""
    assert evaluate_bundle(exported, data).same_data is True
    users = np.flatnonzero(data.user_train_end > data.user_first)[:20]
    targets, train_end = data.user_targets["test"].copy(), data.user_train_end.copy()
    targets[:] = -1
    targets[users] = np.stack([data.user_end[users] - 1, data.user_end[users]], axis=1)
    train_end[users] = data.user_first[users]
    other = replace(data, user_targets={**data.user_targets, "test": targets}, user_train_end=train_end)
    assert evaluate_bundle(exported, other).same_data is False
    notes = exported.notes
    try:
        exported.note(provenance={"data": "unknown"}, baselines={"test": 5})
        assert evaluate_bundle(exported, other).same_data is None
    finally:
        exported.note(provenance=notes["provenance"], baselines={})
