"""The kernel scorer against its formula, in the forms of training and of serving."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from nann.training.checkpoint import build_model
from nann.training.config import KernelConfig, ModelConfig, ProfileConfig
from nann.training.data.item_attributes import ItemAttributes
from nann.training.export.serving_modules import item_vectors, light_vectors, serving_modules
from nann.training.models.attribute_bag import AttributeBag
from nann.training.models.kernel_scorer import KernelScorer, RowsOfContexts
from nann.training.models.scorer import map_parts

LENGTH = 8


def build(data, config, heads=3, with_profile=False, **kernel):
    shape = ModelConfig(
        architecture="kernel",
        sequence_length=LENGTH,
        item_layers=(12,),
        kernel=KernelConfig(heads=heads, **kernel),
        profile=ProfileConfig(d_model=8, feed_forward=12) if with_profile else None,
    )
    torch.manual_seed(0)
    model = build_model(config.model_copy(update={"model": shape}), with_attributes(data))
    with torch.no_grad():
        for parameter in model.parameters():  # nothing may stay at a start that hides it, such as zero
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model.eval()


def with_attributes(data):
    """The data set with two codes for every item but the first, which has none."""
    counts = np.full(data.item_count, 2)
    counts[0] = 0
    codes = np.random.default_rng(0).integers(3, size=(data.item_count - 1, 1)) + np.array([0, 3])
    indptr = np.append(0, counts.cumsum())
    return replace(data, item_attributes=ItemAttributes(indptr, codes.ravel().astype(np.int32), (), 6))


@pytest.fixture(params=[(3, False, False), (3, True, True), (0, False, False), (0, False, True)], ids=str)
def model(request, data, config):
    heads, with_profile, repeats = request.param
    return build(data, config, heads, with_profile, repeats=repeats, attended=5)


def numpy_scores(model, behaviors, profile_codes, candidates):
    """The module's formula, one pair at a time."""
    value = {name: tensor.double().numpy() for name, tensor in model.state_dict().items()}
    rows = []
    for history, codes, items in zip(behaviors.numpy(), profile_codes, candidates.numpy(), strict=True):
        known = history[history >= 0]
        ages = np.arange(len(known))[::-1]

        def embed(item):
            codes = model.attributes.codes[model.attributes.indptr[item] : model.attributes.indptr[item + 1]].numpy()
            pooled = value["attributes.embedding.weight"][codes].sum(axis=0) / np.sqrt(max(1, len(codes)))
            return value["item_embedding.weight"][item] + pooled

        k = [value["key.weight"] @ embed(item) + value["key.bias"] for item in known]
        recency, head_recency, repeat_recency = (
            np.exp(value[name]) for name in ("recency", "head_recency", "repeat_recency")
        )
        r = recency[ages]
        width = len(value["key.bias"])
        pooled = sum((r[b] * k[b] for b in range(len(known))), np.zeros(width)) / np.sqrt(r.sum() + 1e-6)
        if model.profile_network is not None:
            pooled = pooled + model.profile_network(codes[None])[0].double().numpy()
        u = pooled + model.user_network(torch.from_numpy(pooled).float()).double().numpy()
        scores = []
        for item in items:
            q = np.exp(value["log_scale"]) * (value["query.weight"] @ embed(item) + value["query.bias"])
            popularity = value["popularity"] * value["log_popularity"][item] + value["item_bias.weight"][item, 0]
            score = u @ q + popularity

            def gate(kind, place, q=q, u=u, popularity=popularity):
                start, of_user, of_item = (value[f"{kind}_gates.{part}"][place] for part in ("start", "user", "item"))
                rare = popularity + np.log(model.item_count)
                return start + 0.3 * (u @ of_user + q @ of_item[:-1] + rare * of_item[-1])

            for head in range(model.kernel.heads):
                similar = [
                    value["temperatures"][head] * (each @ value["head_keys"][head]) @ (q @ value["head_queries"][head])
                    for each in k
                ]
                seen = [b for b in range(len(known)) if ages[b] < model.kernel.attended]
                found = sum(head_recency[head, ages[b]] * np.exp(min(12, similar[b])) for b in seen)
                score += gate("head", head) * np.log1p(found)
            if model.kernel.repeats:
                found = sum(repeat_recency[ages[b]] for b in range(len(known)) if known[b] == item)
                score += gate("repeat", 0) * np.log1p(found)
            scores.append(score)
        rows.append(scores)
    return torch.tensor(np.array(rows)).float()


@torch.inference_mode()
def test_scores_are_those_of_the_formula(model, request_tensors):
    torch.testing.assert_close(model(*request_tensors), numpy_scores(model, *request_tensors), rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_candidates_that_all_users_share_have_the_same_scores(model, request_tensors):
    behaviors, profile_codes, _ = request_tensors
    items = torch.cat([behaviors[0].clamp(min=0), torch.arange(model.item_count), behaviors[1].clamp(min=0)])
    apart = model(behaviors, profile_codes, items.expand(len(behaviors), -1))
    torch.testing.assert_close(model(behaviors, profile_codes, items[None]), apart)
    features = map_parts(
        model.item_features(model.item_vectors(items), torch.full_like(items, -1)), lambda part: part[None]
    )
    user = model.user_context(behaviors, profile_codes)
    in_no_history = user._replace(repeat_weights=torch.zeros_like(user.repeat_weights))
    torch.testing.assert_close(model.score(user, features), model.score(in_no_history, features))


@torch.inference_mode()
def test_serving_modules_give_the_same_scores(model, request_tensors):
    behaviors, profiles, candidates = request_tensors
    user_encoder, scorer = serving_modules(model)
    state = user_encoder(behaviors, profiles)
    torch.testing.assert_close(scorer(state, candidates), model(*request_tensors), rtol=1e-4, atol=1e-4)
    padded = scorer(state, nn.functional.pad(candidates, (0, 3), value=-1))
    torch.testing.assert_close(padded[:, :6], scorer(state, candidates), rtol=1e-5, atol=1e-5)


@torch.inference_mode()
def test_contexts_that_share_a_row_have_the_scores_that_they_have_alone(model, data):
    generator = torch.Generator().manual_seed(1)
    items = torch.randperm(data.item_count, generator=generator)
    behaviors = torch.randint(len(items), (2, 13), generator=generator)
    ends = torch.tensor([[0, 1, 9, 13], [3, 3, 12, 0]])  # more behaviours than the model's length, and none
    profiles = torch.tensor([[1, 2], [3, 0]], dtype=torch.int32)
    candidates = torch.arange(5, 12)
    embedded = model.embed(items)
    vectors = model.to_vectors(embedded[candidates], items[candidates])
    places = torch.where((behaviors >= 5) & (behaviors < 12), behaviors - 5, 7)
    together = model.score_rows(RowsOfContexts(behaviors, places, ends, profiles), embedded[behaviors], vectors)
    for row in range(2):
        for place, end in enumerate(ends[row].tolist()):
            history = torch.full((1, LENGTH), -1, dtype=torch.int64)
            seen = items[behaviors[row, max(0, end - LENGTH) : end]]
            history[0, LENGTH - len(seen) :] = seen
            alone = model(history, profiles[row : row + 1], items[candidates][None])[0]
            torch.testing.assert_close(together[row, place], alone, rtol=1e-4, atol=1e-4)


@torch.inference_mode()
def test_the_light_score_is_the_first_term(data, config, request_tensors):
    model, (behaviors, profiles, _) = build(data, config), request_tensors
    users, items = model.light_users(behaviors, profiles), light_vectors(model)
    torch.testing.assert_close(items, item_vectors(model))
    everything = torch.arange(data.item_count).expand(len(behaviors), -1)
    model.use_heads(False)
    torch.testing.assert_close(users @ items.T, model(behaviors, profiles, everything), rtol=1e-4, atol=1e-4)


@torch.inference_mode()
def test_without_heads_there_is_no_light_score(data, config):
    model = build(data, config)
    assert model.has_light
    model.use_heads(False)
    assert not model.has_light
    assert light_vectors(model) is None


def test_a_bag_pools_the_codes_of_each_item():
    bag = AttributeBag(torch.tensor([0, 2, 2, 5]), torch.tensor([0, 3, 1, 2, 3]), 4, 6)
    items = torch.tensor([2, 1, 0, 2])
    expected = [
        bag.embedding.weight[[1, 2, 3]].sum(0) / 3**0.5,
        torch.zeros(6),
        bag.embedding.weight[[0, 3]].sum(0) / 2**0.5,
    ]
    torch.testing.assert_close(bag(items), torch.stack([expected[0], expected[1], expected[2], expected[0]]))
    bag(items).sum().backward()
    torch.testing.assert_close(bag.embedding.weight.grad[1], torch.full((6,), 2 / 3**0.5))


def test_unseen_items_are_what_their_attributes_say(data, config):
    counts = data.train_counts.copy()
    counts[3] = 0
    model = build_model(
        config.model_copy(update={"model": ModelConfig(architecture="kernel")}),
        replace(with_attributes(data), train_counts=counts),
    )
    assert not model.item_embedding.weight[3].any()
    assert model.item_embedding.weight[4].any()
    assert model.embed(torch.tensor([3])).any()


@torch.inference_mode()
def test_parts_are_mapped_in_place(data, config, request_tensors):
    model, (behaviors, profiles, candidates) = build(data, config), request_tensors
    user = model.user_context(behaviors, profiles)
    item = model.item_features(model.item_vectors(candidates), candidates)
    one = model.score(map_parts(user, lambda part: part[1:2]), map_parts(item, lambda part: part[1:2]))
    torch.testing.assert_close(one, model.score(user, item)[1:2])


@torch.inference_mode()
@pytest.mark.parametrize("count", [2048, 2049, 5_000_000])
def test_repeats_are_told_apart_whatever_the_number_of_items(config, count):
    """Also where item indices are beyond what half precision can hold."""
    shape = ModelConfig(
        architecture="kernel", sequence_length=4, item_layers=(2,), kernel=KernelConfig(heads=0, repeats=True)
    )
    model = KernelScorer(shape, torch.ones(count, dtype=torch.int64)).eval()
    behaviors = torch.tensor([[-1, count - 1, 7, min(2048 + 7, count - 2)]])
    candidates = torch.tensor([[count - 1, 7, count - 2, 0, min(4096 + 7, count - 3)]])
    encoder, scorer = serving_modules(model)
    state = encoder(behaviors.int(), torch.zeros(1, 1))
    assert state.abs().max() <= 2048
    torch.testing.assert_close(
        scorer(state.half().float(), candidates), model(behaviors, None, candidates), rtol=1e-3, atol=1e-3
    )
