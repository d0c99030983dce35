"""The scorer in two forms that are not served, for `perf/benchmarks/scorer.py` to compare with the served one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.export import Dim

from nann.scorer import Float32Array, Int32Array
from nann.signature import BEHAVIORS, CANDIDATE_SCORES, CANDIDATES, SCORER, USER_STATE, ModelSpec, TensorSpec

from ..config import ModelConfig
from ..models.neural_scorer import MASKED, ItemFeatures, NeuralScorer
from .onnx_export import export_module
from .serving_modules import TableScorer, UserEncoder, item_vectors, serving_modules

ITEM_VECTORS = TensorSpec("item_vectors", np.dtype(np.float32), (-1, -1))
"""e_v of each candidate: float32[B, C, d]."""
_NAIVE = ModelSpec("naive_scorer", (BEHAVIORS, CANDIDATES), (CANDIDATE_SCORES,))
_SHIPPED = ModelSpec("shipped_scorer", (USER_STATE, ITEM_VECTORS), (CANDIDATE_SCORES,))


class NaiveScorer(nn.Module):
    """The network as the paper draws it, nothing precomputed: behaviors int32[B, L], candidates int32[B, C]."""

    def __init__(self, model: NeuralScorer) -> None:
        super().__init__()
        self.model = model

    def forward(self, behaviors: Tensor, candidates: Tensor) -> Tensor:
        """Scores: float32[B, C]."""
        model = self.model
        known = behaviors >= 0
        embedded = model.embed(behaviors.clamp(min=0).long()) * known[..., None]  # [B, L, 2 E]
        vectors = model.item_vectors(candidates.clamp(min=0))  # [B, C, d]
        query, keys = model.query_network(vectors), model.key_network(embedded)
        logits = query @ keys.transpose(1, 2) / model.config.attention_dim**0.5  # [B, C, L]
        attended = logits.masked_fill(~known[:, None, :], MASKED).softmax(dim=-1) @ embedded
        user = embedded.sum(dim=1)[:, None, :].expand(-1, vectors.shape[1], -1)
        scores: Tensor = model.score_network(torch.cat([user, attended, vectors], dim=-1)).squeeze(-1)
        return scores


class ShippedScorer(nn.Module):
    """The served scorer without its table: the item's side is computed from vectors sent with each call."""

    def __init__(self, folded: NeuralScorer) -> None:
        super().__init__()
        self.model = folded
        self.scorer = TableScorer(folded, folded.item_features(torch.zeros(1, folded.config.vector_dim)))

    def forward(self, user_state: Tensor, item_vectors: Tensor) -> Tensor:
        """Scores: float32[B, C]."""
        features: ItemFeatures = self.model.item_features(item_vectors)
        assert features.query is not None
        return self.scorer.score(user_state, torch.cat([features.share, features.query], dim=-1))


@dataclass(frozen=True)
class ComparedForms:
    """ONNX files of one network in three forms, and the inputs to score.

    Attributes:
        item_vectors: float32[N, d].
        behaviors: int32[U, L].
        user_states: float32[U, S], of the same users.
    """

    naive: Path
    served: Path
    shipped: Path
    item_vectors: Float32Array
    behaviors: Int32Array
    user_states: Float32Array


@torch.inference_mode()
def paper_network(item_count: int, seed: int = 0) -> NeuralScorer:
    """The paper's UserBehavior network with random weights, which is as fast as a trained one."""
    torch.manual_seed(seed)
    model = NeuralScorer(ModelConfig(), torch.randint(300, (item_count,)), 300).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d):  # statistics that are not the identity
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_(std=0.3)
            module.running_var.uniform_(0.5, 2)
        if isinstance(module, nn.Embedding):
            module.weight.normal_(std=0.5)
    return model


def export_forms(model: NeuralScorer, folder: Path, users: int) -> ComparedForms:
    """Writes an attention model in its three forms into a folder; one in four users has half a history."""
    folder.mkdir(parents=True, exist_ok=True)
    length = model.config.sequence_length
    behaviors = torch.randint(model.item_count, (users, length), dtype=torch.int32)
    behaviors[::4, : length // 2] = -1
    encoder, scorer = serving_modules(model)
    assert isinstance(encoder, UserEncoder)
    with torch.inference_mode():
        states = encoder(behaviors, torch.zeros(users, 1, dtype=torch.int32)).clone()
    forms = ComparedForms(
        naive=folder / "naive.onnx",
        served=folder / "served.onnx",
        shipped=folder / "shipped.onnx",
        item_vectors=item_vectors(model).numpy(),
        behaviors=behaviors.numpy(),
        user_states=states.numpy(),
    )
    candidates = torch.zeros(2, 3, dtype=torch.int32)
    vectors = torch.zeros(2, 3, model.config.vector_dim)
    dynamic = ({0: Dim("B")}, {0: Dim("B"), 1: Dim("C")})
    export_module(NaiveScorer(model).eval(), (behaviors[:2], candidates), _NAIVE, dynamic, forms.naive)
    export_module(scorer, (states[:2], candidates), SCORER, dynamic, forms.served)
    export_module(ShippedScorer(encoder.model).eval(), (states[:2], vectors), _SHIPPED, dynamic, forms.shipped)
    return forms
