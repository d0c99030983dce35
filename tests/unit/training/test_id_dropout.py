"""Id dropout: what training leaves out, and how items that it never saw are placed."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from nann.errors import ConfigError
from nann.training.before_training import check_before_training
from nann.training.checkpoint import Checkpoint, build_model
from nann.training.config import ModelConfig
from nann.training.objective import TrainingObjective
from nann.training.sampling import BatchSampler
from nann.training.train import train

ARCHITECTURES = ("attention", "two_sided", "kernel")
UNSEEN = [3, 17]


def with_model(config, **changes):
    return config.model_copy(update={"model": config.model.model_copy(update=changes)})


@pytest.fixture
def some_unseen(data):
    counts = data.train_counts.copy()
    counts[UNSEEN] = 0
    return replace(data, train_counts=counts)


def build(data, config, architecture, share=0.5):
    torch.manual_seed(0)
    return build_model(with_model(config, architecture=architecture, id_dropout=share), data)


def own_part(model, items):
    """What an item's id adds to its embedding."""
    embedded = model.embed(items)
    if model.config.architecture != "kernel":
        return embedded[:, : model.config.embedding_dim]
    return embedded - model.attributes(items)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_off_it_leaves_no_trace(data, config, architecture):
    model = build(data, config, architecture, 0.0)
    assert model.unknown_ids is None
    assert not [name for name in model.state_dict() if "unknown" in name]
    before = torch.get_rng_state()
    model.begin_step()
    assert torch.equal(torch.get_rng_state(), before)


@torch.no_grad()
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_step_takes_the_id_from_a_share_of_the_items_and_from_unseen_ones(some_unseen, config, architecture):
    model, items = build(some_unseen, config, architecture).train(), torch.arange(some_unseen.item_count)
    model.unknown_ids.vector.copy_(torch.randn(len(model.unknown_ids.vector)))
    drawn = []
    for step in range(2):
        torch.manual_seed(step)
        model.begin_step()
        own = own_part(model, items)
        drawn.append(torch.isclose(own, model.unknown_ids.vector, atol=1e-6).all(dim=1))
        assert torch.equal(own_part(model, items), own)  # the same for all that a step looks up
        assert drawn[-1][UNSEEN].all()
        assert 0.35 < drawn[-1].float().mean() < 0.65
    assert not torch.equal(*drawn)


@torch.no_grad()
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_in_evaluation_only_unseen_items_are_without_id(some_unseen, config, architecture):
    model, items = build(some_unseen, config, architecture), torch.arange(some_unseen.item_count)
    model.unknown_ids.vector.copy_(torch.randn(len(model.unknown_ids.vector)))
    model.train().begin_step()
    own = own_part(model.eval(), items)
    without = torch.isclose(own, model.unknown_ids.vector, atol=1e-6).all(dim=1)
    assert without.nonzero().flatten().tolist() == UNSEEN


@torch.no_grad()
def test_unseen_items_are_as_popular_as_the_average_item(some_unseen, config):
    model = build(some_unseen, config, "kernel").eval()
    model.popularity.fill_(0.7)
    average, share = 1 / some_unseen.item_count, some_unseen.train_counts[4] / some_unseen.train_counts.sum()
    expected = 0.7 * np.log([average, average, share])
    np.testing.assert_allclose(model.item_vectors(torch.tensor([*UNSEEN, 4]))[:, -1], expected, rtol=1e-5)


def test_all_of_it_trains(some_unseen, config):
    config = with_model(config, id_dropout=0.5)
    model = build_model(config, some_unseen)
    objective = TrainingObjective(model, config.loss, torch.tensor(some_unseen.train_counts))
    objective(BatchSampler(some_unseen, config).batch(0)).total.backward()
    assert model.unknown_ids.vector.grad.any()
    assert not model.item_embedding.weight.grad[UNSEEN].any()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_checkpoint_keeps_it(data, config, tmp_path, architecture):
    config = with_model(config, architecture=architecture, id_dropout=0.5)
    model = Checkpoint.load(train(data, config, tmp_path, stop_at_step=2).checkpoint).restore(data)
    assert model.unknown_ids.vector.any()


def test_a_checkpoint_of_an_older_release_has_the_setting_elsewhere(data, config, tmp_path):
    path = train(data, config, tmp_path, stop_at_step=1).checkpoint
    body = torch.load(path, weights_only=True)
    settings = json.loads(body["config"])
    settings["model"]["kernel"]["id_dropout"] = settings["model"].pop("id_dropout")
    torch.save({**body, "config": json.dumps(settings)}, path)
    assert Checkpoint.load(path).config == config


def test_items_that_only_ids_describe_can_not_do_without(data, config):
    bare = replace(data, item_categories=np.zeros_like(data.item_categories), category_labels=("all",))
    with pytest.raises(ConfigError, match=r"model.id_dropout is 0.1, and nothing but ids describes .* set .* to 0"):
        check_before_training(bare, config.model_copy(update={"model": ModelConfig(id_dropout=0.1)}))
