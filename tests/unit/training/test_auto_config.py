"""What `--config auto` chooses, and that it trains."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from support.sequences import data_of

from nann.training.auto_config import HEAD_PASSES, LENGTH, LONG, PASSES, auto_config
from nann.training.row_sampling import RowSampler
from nann.training.train import train


def test_a_log_without_repeats_gets_short_histories_and_every_pass():
    rng = np.random.default_rng(0)
    data = data_of([rng.permutation(500)[:80] for _ in range(20)], excludes_history=True)
    choice = auto_config(data)
    assert choice.config.model.architecture == "kernel"
    assert choice.config.model.sequence_length == LENGTH
    assert not choice.config.model.kernel.repeats
    assert choice.config.loss.own_items == "masked"
    start = RowSampler(data, choice.config, choice.config.start.batch_size, choice.config.start.negatives)
    assert choice.config.start.steps == PASSES * start.steps_per_epoch
    main = RowSampler(data, choice.config, choice.config.optimization.batch_size, choice.config.loss.negatives)
    assert choice.config.optimization.steps == HEAD_PASSES * main.steps_per_epoch
    assert choice.reasons[0].startswith(f"{20 * 79:,} targets: 12.0 passes")
    assert choice.reasons[1] == "0% of the targets repeat an earlier item of their user"


@pytest.mark.parametrize(("length", "chosen"), [(60, LENGTH), (200, 150), (2000, LONG)])
def test_where_users_come_back_requests_ship_what_most_histories_hold(length, chosen):
    rng = np.random.default_rng(0)
    data = data_of([rng.integers(30, size=length) for _ in range(10)])
    config = auto_config(data).config
    assert config.model.kernel.repeats
    assert config.loss.own_items == "kept"
    assert config.model.sequence_length == pytest.approx(chosen, rel=0.1)
    assert "the score knows repeats" in auto_config(data).reasons[1]


@pytest.mark.parametrize(("rare", "discount"), [(2, 0.2), (0, 0.0)])
def test_where_users_come_back_and_many_targets_are_rare_popularity_counts_for_less(rare, discount):
    """Each user has 20 common items twice, and `rare` items twice that nobody else has."""
    common, of_user = np.tile(np.arange(20), 2), lambda user: 20 + 10 * user + np.repeat(np.arange(5 * rare), 2)
    choice = auto_config(data_of([np.concatenate([common, of_user(user)]) for user in range(10)]))
    assert choice.config.loss.popularity_discount == discount
    assert ("leaves out 20% of the log popularity" in choice.reasons[2]) == (discount > 0)


@pytest.mark.parametrize(("lone", "described", "share"), [(3, True, 0.1), (1, True, 0.0), (3, False, 0.0)])
def test_where_many_targets_are_the_only_one_of_their_item_ids_are_left_out(lone, described, share):
    """Each user has 20 common items twice, and `lone` items that nobody else has: 2% or 7% of the targets."""
    common = np.tile(np.arange(20), 2)
    data = data_of([np.append(common, 20 + 10 * user + np.arange(lone)) for user in range(10)])
    if described:
        categories = np.arange(data.item_count, dtype=np.int32) % 2
        data = replace(data, item_categories=categories, category_labels=("a", "b"))
    choice = auto_config(data)
    assert choice.config.model.id_dropout == share
    assert ("new items come often, and each step takes the ids from 10%" in choice.reasons[3]) == (share > 0)


def test_excluded_repeats_are_not_counted_on():
    data = data_of([np.arange(60) % 30 for _ in range(10)], excludes_history=True)
    assert not auto_config(data).config.model.kernel.repeats


def test_other_steps_are_shared_out_as_before(data):
    config = auto_config(data).config
    fewer = config.override(steps=40, seed=7)
    assert (fewer.steps, fewer.seed) == (40, 7)
    assert fewer.start_steps == pytest.approx(40 * config.start_steps / config.steps, abs=1)
    assert config.override(steps=1).start is None
    assert config.override() == config


@pytest.mark.heavy
def test_the_choice_trains(data, tmp_path):
    config = auto_config(data).config.override(steps=6)
    report = train(data, config, tmp_path)
    assert report.steps == 6
    assert np.isfinite(report.nce_loss)
