from __future__ import annotations

import numpy as np
import pytest
import torch

from nann.kernels_numpy import inner_products
from nann.light_walk import light_users
from nann.training.checkpoint import Checkpoint, build_model
from nann.training.export.serving_modules import light_vectors, serving_modules
from nann.training.objective import TrainingObjective
from nann.training.sampling import BatchSampler
from nann.training.train import train

pytestmark = pytest.mark.heavy


def without_light(config):
    return config.model_copy(update={"light": config.light.model_copy(update={"enabled": False})})


def profiled(config):
    profile = {"d_model": 4, "heads": 1, "feed_forward": 8}
    return type(config).model_validate(
        {**config.model_dump(), "model": {**config.model.model_dump(), "profile": profile}}
    )


@pytest.mark.parametrize("change", [lambda config: config, profiled], ids=["plain", "profile"])
def test_the_scorers_weights_are_the_same_to_the_last_bit_without_it(data, config, tmp_path, change):
    config = change(config)
    with_light = Checkpoint.load(train(data, config, tmp_path / "with").checkpoint).model
    without = Checkpoint.load(train(data, without_light(config), tmp_path / "without").checkpoint).model
    assert {name for name in with_light if not name.startswith("light.")} == set(without)
    for name, tensor in without.items():  # weights, and the running statistics of batch norm
        assert torch.equal(tensor, with_light[name]), name
    start = build_model(config, data).light.state_dict()
    assert all(not torch.equal(tensor, with_light[f"light.{name}"]) for name, tensor in start.items())


def test_clipping_one_leaves_the_other(data, config, tmp_path):
    """The clip norm is exceeded on every step."""
    config = config.model_copy(update={"optimization": config.optimization.model_copy(update={"clip_norm": 0.01})})
    with_light = Checkpoint.load(train(data, config, tmp_path / "with", stop_at_step=5).checkpoint).model
    without = Checkpoint.load(train(data, without_light(config), tmp_path / "without", stop_at_step=5).checkpoint).model
    for name, tensor in without.items():
        assert torch.equal(tensor, with_light[name]), name


def test_its_loss_falls(data, config, tmp_path):
    longer = config.model_copy(update={"optimization": config.optimization.model_copy(update={"steps": 150})})
    report = train(data, longer, tmp_path)
    model = Checkpoint.load(report.checkpoint).restore(data)
    batch = BatchSampler(data, config).batch(0)
    trained = TrainingObjective(model, config.loss, torch.tensor(data.train_counts))(batch).light.item()
    fresh = build_model(config, data).light.state_dict()
    model.light.load_state_dict(fresh)
    before = TrainingObjective(model, config.loss, torch.tensor(data.train_counts))(batch).light.item()
    assert trained < 0.5 * before


def test_no_gradient_reaches_the_scorer(data, config):
    model = build_model(config, data).train()
    objective = TrainingObjective(model, config.loss, torch.tensor(data.train_counts))
    batch = BatchSampler(data, config).batch(0)
    objective.model.eval()  # as `forward` calls it: with running statistics
    objective._light(batch, torch.randn(batch.candidates.shape)).backward()
    for name, parameter in model.named_parameters():
        reached = parameter.grad is not None and bool(parameter.grad.abs().sum() > 0)
        assert reached == name.startswith("light."), name


def test_the_two_sided_architecture_has_none(data, config):
    two_sided = config.model_copy(update={"model": config.model.model_copy(update={"architecture": "two_sided"})})
    assert build_model(two_sided, data).light is None
    assert build_model(without_light(config), data).light is None


@pytest.mark.parametrize("architecture", ["attention", "no_attention"])
def test_what_is_served_is_the_light_head(data, config, architecture):
    """The end of the user state and the item table: their inner products are the head's own light scores."""
    torch.manual_seed(3)
    config = config.model_copy(update={"model": config.model.model_copy(update={"architecture": architecture})})
    model = build_model(config, data)
    for norm in (module for module in model.modules() if isinstance(module, torch.nn.BatchNorm1d)):
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)
    model.eval()
    behaviors = torch.randint(data.item_count, (4, 8), dtype=torch.int32)
    behaviors[0] = -1
    behaviors[1, :6] = -1
    profiles = torch.zeros(4, 1, dtype=torch.int32)
    encoder, scorer = serving_modules(model)
    table = light_vectors(model).numpy()
    with torch.inference_mode():
        state = encoder(behaviors, profiles)
        expected = (
            model.light_users(behaviors, profiles)
            @ model.light.item_vectors(model.item_vectors(torch.arange(data.item_count))).T
        )
        candidates = torch.arange(data.item_count, dtype=torch.int32).expand(4, -1)
        scores = model(behaviors, profiles, candidates)
        torch.testing.assert_close(scorer(state, candidates), scores, atol=1e-4, rtol=1e-4)
    users = light_users(state.numpy(), table.shape[1])
    served = np.stack([inner_products(user, table) for user in users])
    np.testing.assert_allclose(served, expected.numpy(), atol=1e-4, rtol=1e-4)
    assert (users[:, -1] == 1).all()
