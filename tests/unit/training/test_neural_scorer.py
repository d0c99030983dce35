"""The network, computed apart for user and item, against a plain form, written as the paper draws it."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F  # noqa: N812

from nann.training.checkpoint import build_model
from nann.training.config import ModelConfig, ProfileConfig
from nann.training.export.serving_modules import serving_modules

ARCHITECTURES = ["attention", "no_attention", "two_sided"]


def plain_scores(model, behaviors, profile_codes, candidates):
    """One user and one candidate at a time, everything concatenated."""
    config = model.config
    rows = []
    for history, codes, items in zip(behaviors, profile_codes, candidates, strict=True):
        known = history[history >= 0].long()
        x = torch.cat([model.item_embedding(known), model.category_embedding(model.item_categories[known])], dim=1)
        pooled = x.sum(dim=0)
        user = pooled
        if model.profile_transformer is not None:
            user = torch.cat([pooled, model.profile_transformer(codes[None])[0]])
        scores = []
        for item in items.long():
            embedded = torch.cat([model.item_embedding(item), model.category_embedding(model.item_categories[item])])
            e_v = model.item_network(embedded[None])[0]
            if config.architecture == "two_sided":
                scores.append(model.user_tower(user[None])[0] @ e_v)
                continue
            attended = pooled
            if config.architecture == "attention":
                query, keys = model.query_network(e_v), model.key_network(x)
                weights = torch.softmax(keys @ query / math.sqrt(config.attention_dim), dim=0)
                attended = weights @ x if len(x) else torch.zeros_like(pooled)
            scores.append(model.score_network(torch.cat([user, attended, e_v])[None])[0, 0])
        rows.append(torch.stack(scores))
    return torch.stack(rows)


@pytest.fixture(params=[(a, p) for a in ARCHITECTURES for p in (False, True)], ids=str)
def model(request, data, config):
    architecture, with_profile = request.param
    profile = ProfileConfig(d_model=8, feed_forward=12) if with_profile else None
    settings = ModelConfig.model_validate(
        {**config.model.model_dump(), "architecture": architecture, "profile": profile}
    )
    torch.manual_seed(0)
    model = build_model(config.model_copy(update={"model": settings}), data)
    for module in model.modules():  # batch norm statistics that are not the identity
        if isinstance(module, torch.nn.BatchNorm1d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
            module.weight.data.normal_(1, 0.3)
            module.bias.data.normal_()
    return model.eval()


@torch.inference_mode()
def test_scores_are_those_of_the_plain_form(model, request_tensors):
    torch.testing.assert_close(model(*request_tensors), plain_scores(model, *request_tensors), rtol=1e-4, atol=1e-4)


@torch.inference_mode()
def test_serving_modules_give_the_same_scores(model, request_tensors):
    behaviors, profiles, candidates = request_tensors
    user_encoder, scorer = serving_modules(model)
    state = user_encoder(behaviors, profiles)
    assert state.ndim == 2
    torch.testing.assert_close(scorer(state, candidates), model(*request_tensors), rtol=1e-4, atol=1e-4)


@torch.inference_mode()
def test_padded_candidates_change_nothing(model, request_tensors):
    behaviors, profiles, candidates = request_tensors
    user_encoder, scorer = serving_modules(model)
    state = user_encoder(behaviors, profiles)
    padded = F.pad(candidates, (0, 3), value=-1)
    scores = scorer(state, padded)
    assert torch.isfinite(scores).all()
    torch.testing.assert_close(scores[:, :6], scorer(state, candidates), rtol=1e-5, atol=1e-5)


@torch.inference_mode()
def test_padding_of_behaviours_changes_nothing(model, request_tensors):
    behaviors, profiles, candidates = request_tensors
    wider = F.pad(behaviors, (5, 0), value=-1)
    torch.testing.assert_close(model(wider, profiles, candidates), model(*request_tensors), rtol=1e-4, atol=1e-4)


@torch.inference_mode()
def test_shared_candidates_may_be_given_once(model, request_tensors):
    behaviors, profiles, candidates = request_tensors
    shared = candidates[:1]
    expected = model(behaviors, profiles, shared.expand(4, -1))
    torch.testing.assert_close(model(behaviors, profiles, shared), expected, rtol=1e-5, atol=1e-5)
