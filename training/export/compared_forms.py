"""The scorer in three forms, for `perf/benchmarks/scorer.py` to compare: the two that are served, and a naive one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim

from nann.item_rows import ItemRows
from nann.scorer import Float32Array, Int32Array
from nann.signature import BEHAVIORS, CANDIDATE_SCORES, CANDIDATES, ROW_SCORER, SCORER, ModelSpec

from ..config import ModelConfig
from ..models.neural_scorer import MASKED, NeuralScorer
from .native_form import write_native
from .onnx_file import export_module
from .serving_modules import row_modules, serving_modules

_NAIVE = ModelSpec("naive_scorer", (BEHAVIORS, CANDIDATES), (CANDIDATE_SCORES,))


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


@dataclass(frozen=True)
class ComparedForms:
    """ONNX files of one network in three forms, and the inputs to score.

    Attributes:
        naive: the paper's network as it is drawn.
        served: with an item table.
        shipped: with `rows`, which come with the call.
        rows: of the N items.
        behaviors: int32[U, L].
        user_states: float32[U, S], of the same users.
        native: the manifest's entry for the native form of `served`, which is beside it.
    """

    naive: Path
    served: Path
    shipped: Path
    rows: ItemRows
    behaviors: Int32Array
    user_states: Float32Array
    native: Mapping[str, Any] | None = None


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
    _, row_scorer, rows = row_modules(model)
    with torch.inference_mode():
        states = encoder(behaviors, torch.zeros(users, 1, dtype=torch.int32)).clone()
    forms = ComparedForms(
        naive=folder / "naive.onnx",
        served=folder / "served.onnx",
        shipped=folder / "shipped.onnx",
        rows=ItemRows(rows),
        behaviors=behaviors.numpy(),
        user_states=states.numpy(),
    )
    candidates = torch.zeros(2, 3, dtype=torch.int32)
    dynamic = ({0: Dim("B")}, {0: Dim("B"), 1: Dim("C")})
    export_module(NaiveScorer(model).eval(), (behaviors[:2], candidates), _NAIVE, dynamic, forms.naive)
    export_module(scorer, (states[:2], candidates), SCORER, dynamic, forms.served)
    export_module(row_scorer, (states[:2], torch.zeros(2, 3, rows.shape[1])), ROW_SCORER, dynamic, forms.shipped)
    return replace(forms, native=write_native(scorer, forms.served))
