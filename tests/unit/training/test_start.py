from __future__ import annotations

import numpy as np
import pytest
import torch

from nann.training.checkpoint import build_model
from nann.training.config import TrainingConfig


@pytest.fixture
def model(data, config):
    torch.manual_seed(0)
    return build_model(config, data)


def test_popularity_is_the_first_column_of_the_embedding(data, model):
    place = model.item_embedding.weight[:, 0].detach().numpy()
    order = np.argsort(data.train_counts, kind="stable")
    assert np.all(np.diff(place[order]) >= -1e-6)
    assert place.std() == pytest.approx(0.3, rel=0.05)


@torch.inference_mode()
def test_a_candidate_attends_to_itself_most(data):
    """At the paper's widths; the projections are random, so it holds on average."""
    torch.manual_seed(0)
    model = build_model(TrainingConfig(), data)
    behaviors = torch.arange(250, dtype=torch.int32).reshape(5, 50)
    context = model.user_context(behaviors, torch.zeros(5, 1, dtype=torch.int32))
    query = model.item_features(model.item_vectors(behaviors)).query  # batch norm as in training: its own statistics
    logits = query @ context.keys.transpose(1, 2)  # [5, 50 candidates, 50 behaviours]
    own = logits.diagonal(dim1=1, dim2=2)
    others = logits[:, ~torch.eye(50, dtype=torch.bool)]
    assert own.mean() > others.mean() + others.std()
    assert logits.softmax(dim=-1).amax(dim=-1).mean() < 0.5  # and is not saturated


@pytest.mark.parametrize("architecture", ["attention", "no_attention", "two_sided"])
@pytest.mark.parametrize("widths", [(16, 16), (12, 20)])
def test_every_shape_starts(data, config, architecture, widths):
    changes = {"architecture": architecture, "item_layers": widths, "query_hidden": 5, "score_layers": (10, 4)}
    model = build_model(config.model_copy(update={"model": config.model.model_copy(update=changes)}), data)
    scores = model(torch.arange(16, dtype=torch.int32).reshape(2, 8), torch.zeros(2, 1), torch.arange(6).reshape(2, 3))
    assert scores.shape == (2, 3)
    assert torch.isfinite(scores).all()
    assert (scores.std(dim=1) > 0).all(), "candidates of one user differ"
    assert not torch.equal(scores[0], scores[1]), "users differ"


def test_random_starts_leave_popularity_to_training(data, config):
    model = build_model(config.model_copy(update={"model": config.model.model_copy(update={"start": "random"})}), data)
    assert abs(np.corrcoef(model.item_embedding.weight[:, 0].detach(), data.train_counts)[0, 1]) < 0.2
