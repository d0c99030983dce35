"""A trained bundle whose items changed since: what is measured with it, and what is refused."""

from __future__ import annotations

import time

import numpy as np
import pytest

from nann.bundle import Bundle
from nann.catalog import Changes, JournalWriter, Upsert
from nann.catalog.changes import model_of
from nann.errors import BundleError, DataError
from nann.training.checkpoint import Checkpoint
from nann.training.search.evaluate import evaluate_bundle
from nann.training.search.measured_users import bundle_users
from nann.training.search.model_lists import ModelLists
from nann.training.search.pipeline import export_checkpoint, index_checkpoint
from nann.training.search.refresh import refresh_bundle
from nann.training.search.tune import tune_bundle
from nann.training.search.tuning_trials import Aim
from nann.training.train import train

pytestmark = pytest.mark.heavy


@pytest.fixture(scope="module")
def checkpoint(leave_one_out, config, tmp_path_factory):
    return Checkpoint.load(train(leave_one_out, config, tmp_path_factory.mktemp("train")).checkpoint)


@pytest.fixture(scope="module")
def bundle(leave_one_out, checkpoint, tmp_path_factory):
    indexed = index_checkpoint(checkpoint, leave_one_out, tmp_path_factory.mktemp("own") / "bundle", threads=1)
    export_checkpoint(checkpoint, leave_one_out, indexed, item_rows=True)
    return Bundle.open(indexed.path)


def refreshed(bundle, folder, gone):
    """The bundle without some items, so that those behind them have other numbers, and with a new one."""
    new = {"row": bundle.item_rows.base[0], "light": bundle.light_vectors[0]}
    writer = JournalWriter(folder / "journal")
    writer.append(Changes(time.time(), [Upsert(10**6, {}, **new)], gone, model_of(bundle.manifest)).pack())
    writer.close()
    refresh_bundle(bundle, folder / "journal", folder / "next", threads=1)
    return Bundle.open(folder / "next")


def test_users_are_measured_with_the_items_that_are_there(leave_one_out, bundle, tmp_path):
    data = leave_one_out
    before = data.queries("test", bundle.sequence_length)
    gone = sorted({*data.item_ids[::3].tolist(), int(data.item_ids[before.target_items[0]])})
    after = refreshed(bundle, tmp_path, gone)
    queries, batch = bundle_users(after, data, "test", None)

    def left(items):
        return [each for each in data.item_ids[items].tolist() if each not in gone]

    users = [user for user in range(len(before.users)) if left(before.targets_of(user))]
    assert 0 < len(users) < len(before.users)
    assert queries.users.tolist() == before.users[users].tolist()
    old, states = bundle_users(bundle, data, "test", None)
    np.testing.assert_array_equal(batch.states, states.states[users])
    for place, user in enumerate(users):
        assert after.item_ids[queries.targets_of(place)].tolist() == left(before.targets_of(user))
        own = batch.own_items[place]
        history = before.behaviors[user]
        assert after.item_ids[own[own >= 0]].tolist() == left(history[history >= 0])
        excluded = queries.excluded_items[slice(*queries.excluded_indptr[place : place + 2])]
        expected = old.excluded_items[slice(*old.excluded_indptr[user : user + 2])]
        assert after.item_ids[excluded].tolist() == left(expected)
    result = evaluate_bundle(after, data)
    assert (result.users, result.items_matching) == (len(users), after.item_count)
    assert result.coverage > 0.9
    tuned = tune_bundle(after, data, Aim(0.9), max_share=1.0, entry="layers", plot=tmp_path / "plot.png")
    assert tuned.record["coverage"] > 0.9


def test_what_is_refused(leave_one_out, bundle, checkpoint, tmp_path):
    after = refreshed(bundle, tmp_path, [int(leave_one_out.item_ids[5])])
    with pytest.raises(BundleError, match=r"next is of `nann refresh`: its items are not those of the training; index"):
        export_checkpoint(checkpoint, leave_one_out, after, item_rows=True)
    with pytest.raises(DataError, match=r"next changed after the training, and baselines know those of the data set"):
        ModelLists.of_bundle(after, leave_one_out, "test", None)
    (tmp_path / "all").mkdir()
    targets = leave_one_out.queries("test", 1).target_items
    empty = refreshed(bundle, tmp_path / "all", leave_one_out.item_ids[np.unique(targets)].tolist())
    with pytest.raises(DataError, match=r"has none of the items that the 14 users took: `nann refresh` removed them"):
        evaluate_bundle(empty, leave_one_out)
