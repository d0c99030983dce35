"""Sequence encoders on torch's transformer: the SASRec of the example, and what the export says of other spellings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from examples.custom_scorer.sasrec import InnerProductScorer, SasrecEncoder
from nann.beam_search import beam_search
from nann.bundle import Bundle
from nann.errors import ScorerError
from nann.exact_search import exact_search
from nann.metrics import coverage
from nann.search_input import UserBatch
from nann.training.config import SearchConfig
from nann.training.export.onnx_export import export_to_bundle
from nann.training.scorers import OnnxScorer, OnnxUserEncoder, encode_users_torch
from nann.training.search.index import create_bundle

pytestmark = pytest.mark.heavy

ITEMS, DIM, LENGTH = 200, 8, 6


def sasrec(encoder: type[SasrecEncoder] = SasrecEncoder) -> tuple[SasrecEncoder, InnerProductScorer]:
    torch.manual_seed(0)
    items = nn.Embedding(ITEMS, DIM)
    return encoder(items, LENGTH, layers=1), InnerProductScorer(items)


def some_histories(users: int) -> np.ndarray:
    """Of every length from none to all, in turn: int32[users, LENGTH]."""
    behaviors = np.random.default_rng(users).integers(ITEMS, size=(users, LENGTH), dtype=np.int32)
    for user in range(users):
        behaviors[user, : LENGTH - user % (LENGTH + 1)] = -1
    return behaviors


def no_profile(users: int) -> np.ndarray:
    return np.zeros((users, 1), np.int32)


def new_bundle(folder: Path, vectors: torch.Tensor) -> Bundle:
    search = SearchConfig(top_k=5, ef=(5, 20, 40), rounds=(1, 2, 3))
    ids = np.arange(1, ITEMS + 1)
    vectors = vectors.detach().numpy()
    return create_bundle(folder, item_ids=ids, item_vectors=vectors, sequence_length=LENGTH, search=search, threads=1)


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> tuple[Bundle, SasrecEncoder]:
    encoder, scorer = sasrec()
    bundle = new_bundle(tmp_path_factory.mktemp("sasrec") / "bundle", encoder.items.weight)
    export_to_bundle(bundle, encoder, scorer)
    return Bundle.open(bundle.path), encoder


def state_without_padding(encoder: SasrecEncoder, history: np.ndarray) -> torch.Tensor:
    """The transformer on the known places alone, by torch's code for training: float32[DIM]."""
    known = torch.from_numpy(history[history >= 0])
    count = len(known)
    hidden = (encoder.items(known) + encoder.positions[LENGTH - count :]).unsqueeze(0)  # [1, count, DIM]
    causal = torch.ones(count, count, dtype=torch.bool).triu(1)
    return encoder.transformer(hidden, mask=causal, is_causal=False)[0, -1]


@pytest.mark.parametrize("users", [1, 2, 3, 4, 8, 16])
def test_the_exported_encoder_equals_the_module_for_histories_of_every_length(exported, users):
    bundle, encoder = exported
    behaviors = some_histories(users)
    served = OnnxUserEncoder(bundle.path / "user_encoder.onnx").encode(behaviors, no_profile(users))
    np.testing.assert_allclose(served, encode_users_torch(encoder, behaviors, no_profile(users)), rtol=1e-4, atol=1e-5)
    for state, history in zip(served, behaviors, strict=True):
        if (history >= 0).any():
            expected = state_without_padding(encoder, history).detach().numpy()
            np.testing.assert_allclose(state, expected, rtol=1e-4, atol=1e-5)
        else:
            assert np.isfinite(state).all()


def test_the_exported_sequence_encoder_is_searched(exported):
    bundle, _ = exported
    behaviors = some_histories(30)
    states = OnnxUserEncoder(bundle.path / "user_encoder.onnx").encode(behaviors, no_profile(30))
    scorer, users = OnnxScorer(bundle.path / "scorer.onnx"), UserBatch(states, behaviors)
    found = beam_search(bundle.index, scorer, users, bundle.search_params)
    exact = exact_search(scorer, users, ITEMS, bundle.search_params.top_k)
    assert coverage(found.items, exact.items) > 0.9


def test_offline_users_are_encoded_by_the_function_that_was_trained():
    """Not by torch's fast path, which takes a bias of 1 for a mask, and is on again afterwards."""

    class Biased(SasrecEncoder):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            self.causal = self.causal + torch.arange(LENGTH)  # recent behaviours weigh more

    encoder, _ = sasrec(Biased)
    encoder.eval().requires_grad_(False)
    behaviors = some_histories(LENGTH + 1)
    states = encode_users_torch(encoder, behaviors, no_profile(len(behaviors)))
    assert torch.backends.mha.get_fastpath_enabled()
    encoder.train()
    for part in encoder.modules():
        if isinstance(part, nn.Dropout):
            part.p = 0.0
        elif isinstance(part, nn.MultiheadAttention):
            part.dropout = 0.0
    trained = encoder(torch.from_numpy(behaviors), torch.from_numpy(no_profile(len(behaviors))))
    np.testing.assert_allclose(states, trained.numpy(), rtol=1e-4, atol=1e-5)


class GuessingEncoder(SasrecEncoder):
    """Leaves `is_causal` out."""

    def forward(self, behaviors, profile_codes):
        return self.transformer(self.items(behaviors.clamp(min=0)), mask=self.causal)[:, -1]


class BooleanEncoder(SasrecEncoder):
    """Masks padding with booleans."""

    def forward(self, behaviors, profile_codes):
        hidden = self.items(behaviors.clamp(min=0)) + self.positions
        return self.transformer(hidden, src_key_padding_mask=behaviors < 0, is_causal=False)[:, -1]


class BooleanAttention(SasrecEncoder):
    """For a user without behaviours torch gives zeros, and the exported file a mean."""

    def forward(self, behaviors, profile_codes):
        hidden = (self.items(behaviors.clamp(min=0)) + self.positions).unsqueeze(1)  # [B, 1, L, DIM]
        known = (behaviors >= 0)[:, None, None]
        return functional.scaled_dot_product_attention(hidden, hidden, hidden, attn_mask=known)[:, 0, -1]


@pytest.mark.parametrize(
    ("encoder", "message"),
    [
        (GuessingEncoder, r"can't be exported .*data-dependent.*; call nn.TransformerEncoder with is_causal=False"),
        (BooleanEncoder, "at 2 users x 7 candidates the exported files give NaN where torch gives .* with -1e9, not"),
        (BooleanAttention, "differs from torch by .*; only users without behaviours differ: mask attention with -1e9"),
    ],
)
def test_masks_that_do_not_export_are_named(tmp_path, encoder, message):
    encoder, scorer = sasrec(encoder)
    bundle = new_bundle(tmp_path / "bundle", encoder.items.weight)
    with pytest.raises(ScorerError, match=message):
        export_to_bundle(bundle, encoder, scorer)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_weights_are_named(tmp_path, dtype):
    encoder, scorer = sasrec()
    bundle = new_bundle(tmp_path / "bundle", encoder.items.weight)
    scorer = InnerProductScorer(nn.Embedding(ITEMS, DIM)).to(dtype)
    with pytest.raises(ScorerError, match=rf"items.weight is {dtype}; expected float32 weights: call .float\(\)"):
        export_to_bundle(bundle, encoder, scorer)
