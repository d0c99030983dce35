"""The trained scorer as it is exported and served: a user encoder, and a scorer with an item table or without.

`user_state` is flat: `keys | values | mask | light` with attention, `base | light` without; `light` only with a light
head. Other modules may use another layout (docs/custom_scorer.md), except that the light walk reads `light` from the
end (`nann.light_walk`).

In onnxruntime every elementwise pass over the candidates costs as much as a small matrix product, so there are few of
them (`perf/benchmarks/scorer.py`).
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from nann.scorer import Float32Array

from ..models.kernel_scorer import KernelScorer
from ..models.layers import fix_slopes, fold_batch_norm
from ..models.neural_scorer import ItemFeatures, NeuralScorer, UserContext
from ..models.scorer import AnyScorer
from .kernel_modules import ROOM, KernelRowScorer, KernelTableScorer, KernelUserEncoder, digit_count

_ITEM_CHUNK = 65_536


class UserEncoder(nn.Module):
    """(behaviors int32[B, L], profile_codes int32[B, P]) -> user_state float32[B, S]."""

    def __init__(self, model: NeuralScorer) -> None:
        super().__init__()
        self.model = model

    def forward(self, behaviors: Tensor, profile_codes: Tensor) -> Tensor:
        """Everything of the user that the scorer needs, in one row."""
        parts = _scorer_parts(self.model.user_context(behaviors, profile_codes))
        if self.model.light is not None:
            parts.append(self.model.light_users(behaviors, profile_codes))
        return torch.cat([part.flatten(1) for part in parts], dim=1)


def _scorer_parts(context: UserContext) -> list[Tensor]:
    """The user's side in the scorer's layout: keys `[B, A, L]`, values `[B, L, H]`, mask `[B, L]`."""
    if context.keys is None or context.values is None or context.mask is None:
        return [context.base]
    # Attention weights sum to 1, even for an empty history: base added to every value adds base to the weighted sum.
    return [context.keys.transpose(1, 2), context.values + context.base[:, None, :], context.mask]


class RowScorer(nn.Module):
    """(user_state float32[B, S], candidate_rows float32[B, C, H + A]) -> candidate_scores float32[B, C].

    A row is what depends only on the item: its share of the first score layer and its attention query. A candidate
    costs the attention's two products and the rest of the score network.
    """

    def __init__(self, model: NeuralScorer, features: ItemFeatures) -> None:
        super().__init__()
        self.config = model.config
        self.hidden = features.share.shape[-1]
        self.tail = nn.Identity() if model.config.architecture == "two_sided" else model.score_network[1:]

    def forward(self, user_state: Tensor, candidate_rows: Tensor) -> Tensor:
        """Scores."""
        return self.score(user_state, candidate_rows)

    def score(self, user_state: Tensor, items: Tensor) -> Tensor:
        """Scores of items given by their rows: float[B, S], float[B, C, H + A] -> float[B, C]."""
        if self.config.architecture == "attention":
            hidden = self._attend(user_state, items)
        else:
            base = user_state[:, : self.hidden]
            if self.config.architecture == "two_sided":
                return (items @ base[:, :, None]).squeeze(-1)
            hidden = items + base[:, None, :]
        # With one row per pair, bias and activation fuse into the products.
        scores: Tensor = self.tail(hidden.flatten(0, 1)).reshape(items.shape[:2])
        return scores

    def _attend(self, user_state: Tensor, items: Tensor) -> Tensor:
        """The first score layer before its activation: float[B, S], float[B, C, H + A] -> float[B, C, H]."""
        length, width = self.config.sequence_length, self.config.attention_dim
        sizes = [width * length, length * self.hidden, length]
        # The light head's part, at the end, is not the scorer's.
        keys, values, mask = user_state[:, : sum(sizes)].split(sizes, dim=1)
        share, query = items.split([self.hidden, width], dim=-1)
        logits = query @ keys.unflatten(1, (width, length)) + mask[:, None, :]  # [B, C, L]
        return share + logits.softmax(dim=-1) @ values.unflatten(1, (length, self.hidden))


class TableScorer(RowScorer):
    """(user_state float32[B, S], candidates int32[B, C]) -> candidate_scores float32[B, C].

    A table holds the rows, so that a candidate also costs one look-up.
    """

    items: Tensor

    def __init__(self, model: NeuralScorer, features: ItemFeatures) -> None:
        super().__init__(model, features)
        self.register_buffer("items", _rows(features))

    def forward(self, user_state: Tensor, candidates: Tensor) -> Tensor:
        """Scores; padding (-1) gets the score of item 0, which the caller ignores."""
        # `embedding` exports as a single Gather; indexing does not.
        return self.score(user_state, nn.functional.embedding(candidates.clamp(min=0), self.items))


def _rows(features: ItemFeatures) -> Tensor:
    # Side by side, because reaching a random row takes longer than reading it.
    return torch.cat([part for part in features if part is not None], dim=-1)


@torch.inference_mode()
def item_vectors(model: AnyScorer, device: torch.device | None = None) -> Tensor:
    """e_v of every item, computed in chunks: float32[N, d] on the CPU."""
    return _each_item(model.item_vectors, model.item_count, device or next(model.parameters()).device)


@torch.inference_mode()
def light_vectors(model: AnyScorer) -> Tensor | None:
    """The item's side of the light score, of every item: float32[N, width] on the CPU; None without a light score."""
    if not model.has_light:
        return None
    device = next(model.parameters()).device
    return _each_item(lambda items: model.light_items(model.item_vectors(items)), model.item_count, device)


def _each_item(function: Callable[[Tensor], Tensor], count: int, device: torch.device) -> Tensor:
    return torch.cat([function(items).float().cpu() for items in torch.arange(count, device=device).split(_ITEM_CHUNK)])


@torch.inference_mode()
def serving_modules(model: AnyScorer) -> tuple[nn.Module, nn.Module]:
    """User encoder and scorer with an item table of a trained model, batch norm folded; the scores are the same."""
    folded, items = _folded(model)
    if isinstance(folded, KernelScorer):
        digits = digit_count(folded.item_count)
        return _frozen(_kernel_encoder(folded, digits), KernelTableScorer(folded, items, digits))
    return _frozen(UserEncoder(folded), TableScorer(folded, items))


@torch.inference_mode()
def row_modules(model: AnyScorer) -> tuple[nn.Module, nn.Module, Float32Array]:
    """User encoder, scorer without an item table, and the rows of all items, `float32[N, R]`, of a trained model.

    Nothing in the scorer depends on the items: with another corpus of the same model it stays the same.
    """
    folded, items = _folded(model)
    if isinstance(folded, KernelScorer):
        digits = digit_count(ROOM * folded.item_count)
        kernel_scorer = KernelRowScorer(folded, items, digits)
        return *_frozen(_kernel_encoder(folded, digits), kernel_scorer), kernel_scorer.rows(items).numpy()
    return *_frozen(UserEncoder(folded), RowScorer(folded, items)), _rows(items).numpy()


def _folded(model: AnyScorer) -> tuple[Any, Any]:
    """A copy of a model for serving, and its item side of every item."""
    folded = copy.deepcopy(model).cpu().float().eval()
    vectors = item_vectors(folded)
    fold_batch_norm(folded)
    fix_slopes(folded)
    chunks = torch.arange(len(vectors)).split(_ITEM_CHUNK)
    features: list[Any] = [folded.item_features(vectors[chunk], chunk) for chunk in chunks]
    joined = [None if parts[0] is None else torch.cat(parts).clone() for parts in zip(*features, strict=True)]
    if isinstance(folded, NeuralScorer):
        folded.tabulate_attributes()
    return folded, type(features[0])(*joined)


def _kernel_encoder(folded: KernelScorer, digits: int) -> KernelUserEncoder:
    return KernelUserEncoder(
        folded, _each_item(folded.behavior_vectors, folded.item_count, torch.device("cpu")), digits
    )


def _frozen(encoder: nn.Module, scorer: nn.Module) -> tuple[nn.Module, nn.Module]:
    return encoder.requires_grad_(False).eval(), scorer.requires_grad_(False).eval()
