"""Rows of contexts and their loss, against plain loops over the data set."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from support.torchrun import two_processes

from nann.training.checkpoint import Checkpoint, build_model
from nann.training.config import TrainingConfig
from nann.training.models.scorer import map_parts
from nann.training.row_objective import RowObjective, shared_softmax_loss
from nann.training.row_sampling import RowSampler
from nann.training.train import train

pytestmark = pytest.mark.heavy


@pytest.fixture
def rows_config(config):
    changes = {
        "model": {"architecture": "kernel", "sequence_length": 6, "item_layers": (12,)},
        "loss": {"negatives": 30, "auxiliary": {"reading": "row_kl", "epsilon": 0.01, "candidates": 5}},
        "start": {"steps": 30, "batch_size": 64, "negatives": 40, "learning_rate": 1e-2},
        "optimization": {"steps": 20, "batch_size": 32, "warmup_steps": 5, "learning_rate": 3e-3},
    }
    body = {name: {**getattr(config, name).model_dump(), **part} for name, part in changes.items() if name != "start"}
    return TrainingConfig.model_validate(
        {**config.model_dump(), **body, "start": changes["start"], "validation": {"every": 10, "users": 5}}
    )


def sampler_of(data, config, contexts=64, negatives=40, **place):
    return RowSampler(data, config, contexts, negatives, **place)


def contexts_of(data, batch):
    """What each target's context sees, and the target: item indices."""
    contexts = batch.rows.ends.shape[1]
    for context, target in zip(batch.target_contexts.tolist(), batch.targets.tolist(), strict=True):
        row, place = divmod(context, contexts)
        end = int(batch.rows.ends[row, place])
        seen = batch.items[batch.rows.behaviors[row, max(0, end - 6) : end]]
        yield tuple(seen.tolist()), int(batch.items[batch.candidates[target]])


def test_an_epoch_has_every_target_once_with_what_came_before_it(data, rows_config):
    sampler = sampler_of(data, rows_config)
    got = Counter(pair for step in range(sampler.steps_per_epoch) for pair in contexts_of(data, sampler.batch(step)))
    expected = Counter()
    for first, end, user in zip(*data.training_groups(), strict=True):
        seen = data.behavior_items[max(data.user_first[user], first - 6) : first]
        expected.update((tuple(seen.tolist()), int(item)) for item in set(data.behavior_items[first:end].tolist()))
    assert got == expected


def test_processes_share_an_epoch(data, rows_config):
    alone = sampler_of(data, rows_config)
    both = [sampler_of(data, rows_config, rank=rank, world_size=2) for rank in range(2)]
    for step in range(4):
        parts = [sampler.batch(step) for sampler in both]
        for rank, part in enumerate(parts):
            assert list(contexts_of(data, part)) == list(contexts_of(data, alone.batch(2 * step + rank)))


def test_own_items_are_the_rows_behaviors_and_targets(data, rows_config):
    batch = sampler_of(data, rows_config).batch(3)
    contexts = batch.rows.ends.shape[1]
    for row in range(len(batch.own)):
        own = set(batch.items[batch.rows.behaviors[row, : int(batch.rows.ends[row].max())]].tolist())
        own |= {
            int(batch.items[batch.candidates[t]])
            for c, t in zip(batch.target_contexts, batch.targets, strict=True)
            if c // contexts == row
        }
        expected = [int(item) in own for item in batch.items[batch.candidates]]
        assert batch.own[row].tolist() == expected


def test_the_correction_is_the_chance_to_be_in_a_batch(data, rows_config):
    """Counted over many batches, for items by how often training saw them."""
    sampler = sampler_of(data, rows_config, negatives=8)
    steps = 60 * sampler.steps_per_epoch
    found, told = np.zeros(data.item_count), np.zeros(data.item_count)
    for step in range(steps):
        batch = sampler.batch(step)
        candidates = batch.items[batch.candidates].numpy()
        found[candidates] += 1
        told[candidates] += batch.log_expected.exp().numpy()
    order = np.argsort(data.train_counts)
    for part in np.array_split(order[data.train_counts[order] > 0], 3):
        assert (found[part] / steps).mean() == pytest.approx((told[part] / found[part].clip(1)).mean(), rel=0.2)


def test_the_correction_can_be_left_out(data, rows_config):
    without = rows_config.model_copy(update={"loss": rows_config.loss.model_copy(update={"logq": False})})
    batch, corrected = (sampler_of(data, each).batch(3) for each in (without, rows_config))
    assert batch.candidates.equal(corrected.candidates)
    assert not batch.log_expected.any()
    assert batch.log_expected.dtype == torch.float32
    assert (corrected.log_expected < 0).all()


@pytest.mark.parametrize(("own_items", "power"), [("masked", 0.5), ("kept", 0.0), ("kept", 1.0)])
def test_the_loss_is_that_of_plain_loops(data, rows_config, own_items, power):
    batch = sampler_of(data, rows_config).batch(0)
    rows, contexts, count = *batch.rows.ends.shape, len(batch.candidates)
    scores = torch.randn(rows, contexts, count, generator=torch.Generator().manual_seed(0))
    losses = {}
    for context, target in zip(batch.target_contexts.tolist(), batch.targets.tolist(), strict=True):
        row, place = divmod(context, contexts)
        targets = batch.targets[batch.target_contexts == context].tolist()
        total = 0.0
        for candidate in range(count):
            own = bool(batch.own[row, candidate])
            if candidate in targets or (own and own_items == "masked"):
                continue
            correction = 0.0 if own else float(batch.log_expected[candidate])
            total += np.exp(float(scores[row, place, candidate]) - correction)
        losses.setdefault(context, []).append(np.log1p(total / np.exp(float(scores[row, place, target]))))
    weights = [len(one) ** power for one in losses.values()]
    expected = np.average([np.mean(one) for one in losses.values()], weights=weights)
    config = rows_config.loss.model_copy(update={"own_items": own_items, "basket_power": power})
    assert float(shared_softmax_loss(scores, batch, config)) == pytest.approx(expected, rel=1e-4)


def test_the_auxiliary_loss_is_of_targets_with_their_contexts(data, rows_config):
    batch = sampler_of(data, rows_config).batch(1)
    pairs = set(contexts_of(data, batch))
    assert batch.contexts is not None
    assert batch.contexts.candidates.shape[1] == 5
    for behaviors, candidates in zip(batch.contexts.behaviors, batch.contexts.candidates, strict=True):
        seen = tuple(behaviors[behaviors >= 0].tolist())
        assert (seen, int(batch.items[batch.candidates[candidates[0]]])) in pairs


def test_without_auxiliary_loss_no_contexts_are_made(data, rows_config):
    loss = rows_config.loss.model_copy(
        update={"auxiliary": rows_config.loss.auxiliary.model_copy(update={"reading": "none"})}
    )
    assert sampler_of(data, rows_config.model_copy(update={"loss": loss})).batch(0).contexts is None


def test_a_discount_leaves_a_share_of_the_log_popularity_out_of_the_score(data, rows_config):
    batch, loss = sampler_of(data, rows_config).batch(1), rows_config.loss
    model = build_model(rows_config, data).eval()
    discounted = RowObjective(model, loss.model_copy(update={"popularity_discount": 0.3}))(batch)
    with torch.no_grad():
        model.popularity += 0.3  # the share of the log popularity in the score
    plain = RowObjective(model, loss)(batch)
    assert float(discounted.nce) == pytest.approx(float(plain.nce), rel=1e-5)
    assert float(discounted.nce) != pytest.approx(
        float(RowObjective(model, loss)(sampler_of(data, rows_config).batch(2)).nce)
    )


def test_a_batch_moves_to_a_device(data, rows_config):
    batch = sampler_of(data, rows_config).batch(0)
    moved = batch.to(torch.device("meta"))
    assert map_parts(moved.rows, lambda part: part).behaviors.device.type == "meta"
    assert moved.contexts.candidates.shape == batch.contexts.candidates.shape
    assert moved.example_count == len(batch.targets)


def test_it_learns_and_resumes_across_the_stages(data, rows_config, tmp_path):
    objective = RowObjective(build_model(rows_config, data), rows_config.loss)
    before = objective(sampler_of(data, rows_config).batch(0)).nce.item()
    whole = train(data, rows_config, tmp_path / "whole")
    assert whole.nce_loss < before - 0.3
    assert whole.auxiliary_loss > 0
    for stop in (13, 41):  # within the start, and after it
        folder = tmp_path / str(stop)
        train(data, rows_config, folder, stop_at_step=stop)
        restored = Checkpoint.load(folder / "checkpoint.pt").restore(data)
        assert restored.heads_on == (stop > 30)
        train(data, rows_config, folder, resume=True)
        for name, tensor in Checkpoint.load(whole.checkpoint).model.items():
            assert torch.equal(tensor, Checkpoint.load(folder / "checkpoint.pt").model[name]), name


def test_the_best_checkpoint_is_one_with_heads(data, rows_config, tmp_path):
    report = train(data, rows_config, tmp_path)
    assert report.best.step > 30
    assert Checkpoint.load(report.best_checkpoint).restore(data).heads_on


@pytest.mark.parametrize("repeats", [False, True])
def test_two_processes_train_both_stages(data_folder, rows_config, tmp_path, repeats):
    """torchrun with gloo: no process waits for the gradient of what a stage leaves out."""
    model = rows_config.model.model_dump()
    settings = {**rows_config.model_dump(), "model": {**model, "kernel": {"heads": 2, "repeats": repeats}}}
    done = two_processes(
        tmp_path / "run.py",
        "from pathlib import Path\n"
        "from nann.training.config import TrainingConfig\n"
        "from nann.training.data.prepared import PreparedData\n"
        "from nann.training.train import train\n"
        f"config = TrainingConfig.model_validate({settings!r}).override(steps=8)\n"
        f"report = train(PreparedData.load({str(data_folder)!r}), config, Path({str(tmp_path / 'out')!r}))\n"
        "print('STEPS', report.steps)\n",
    )
    assert done.stdout.count("STEPS 8") == 2
