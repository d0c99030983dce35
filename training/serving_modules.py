"""The trained scorer as it is served: a user encoder and a scorer with item tables (what `training.export` exports).

`user_state` is flat: `base | keys | values | mask | light`, the middle three only with attention, the last only with a
light head. Only these two modules know that, but for `light`, which the light walk reads from the end
(`nann.light_walk`); a module of your own may lay it out as it likes (docs/custom_scorer.md).
"""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn

from training.models.layers import fold_batch_norm
from training.models.neural_scorer import ItemFeatures, NeuralScorer, UserContext

_ITEM_CHUNK = 65_536


class UserEncoder(nn.Module):
    """(behaviors int32[B, L], profile_codes int32[B, P]) -> user_state float32[B, S]."""

    def __init__(self, model: NeuralScorer) -> None:
        super().__init__()
        self.model = model

    def forward(self, behaviors: Tensor, profile_codes: Tensor) -> Tensor:
        """Everything of the user that the scorer needs, in one row."""
        context = self.model.user_context(behaviors, profile_codes)
        parts = [part.flatten(1) for part in context if part is not None]
        if self.model.light is not None:
            parts.append(self.model.light_users(behaviors, profile_codes))
        return torch.cat(parts, dim=1)


class TableScorer(nn.Module):
    """(user_state float32[B, S], candidates int32[B, C]) -> candidate_scores float32[B, C].

    What depends on the item alone, its share of the first score layer and its attention query, is computed here once
    and kept as tables: a candidate costs two look-ups, the attention's two products and the rest of the score network.
    """

    def __init__(self, model: NeuralScorer, features: ItemFeatures) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("shares", features.share)
        self.register_buffer("queries", features.query)

    def forward(self, user_state: Tensor, candidates: Tensor) -> Tensor:
        """Scores; padded candidates (-1) get some item's score, which the caller ignores."""
        items = candidates.clamp(min=0)
        # `embedding` and not indexing: it exports as one plain Gather.
        share = nn.functional.embedding(items, self.shares)
        query = None if self.queries is None else nn.functional.embedding(items, self.queries)
        return self.model.score(self._unpack(user_state), ItemFeatures(share, query))

    def _unpack(self, user_state: Tensor) -> UserContext:
        config = self.model.config
        hidden, length, width = self.shares.shape[1], config.sequence_length, config.attention_dim
        shapes: list[tuple[int, ...]] = [(hidden,)]
        if config.architecture == "attention":
            shapes += [(length, width), (length, hidden), (length,)]
        sizes = [math.prod(shape) for shape in shapes]
        parts = user_state[:, : sum(sizes)].split(sizes, dim=1)  # the light head's part is not the scorer's
        return UserContext(*(part.unflatten(1, shape) for part, shape in zip(parts, shapes, strict=True)))


@torch.inference_mode()
def item_vectors(model: NeuralScorer, device: torch.device | None = None) -> Tensor:
    """e_v of every item, computed in chunks: float32[N, d] on the CPU."""
    device = device or next(model.parameters()).device
    chunks = torch.arange(model.item_count, device=device).split(_ITEM_CHUNK)
    return torch.cat([model.item_vectors(chunk).float().cpu() for chunk in chunks])


@torch.inference_mode()
def light_vectors(model: NeuralScorer) -> Tensor | None:
    """x_v of every item: float32[N, width] on the CPU; None without a light head."""
    if model.light is None:
        return None
    device = next(model.parameters()).device
    chunks = item_vectors(model).split(_ITEM_CHUNK)
    return torch.cat([model.light.item_vectors(chunk.to(device)).float().cpu() for chunk in chunks])


def serving_modules(model: NeuralScorer) -> tuple[UserEncoder, TableScorer]:
    """The two modules of a trained scorer, batch norm folded; the scores are the same."""
    folded = copy.deepcopy(model).cpu().float().eval()
    vectors = item_vectors(folded)
    fold_batch_norm(folded)
    with torch.inference_mode():
        chunks = [folded.item_features(chunk) for chunk in vectors.split(_ITEM_CHUNK)]
    tables = [None if parts[0] is None else torch.cat(parts).clone() for parts in zip(*chunks, strict=True)]
    assert tables[0] is not None
    scorer = TableScorer(_without_tables(folded), ItemFeatures(tables[0], tables[1]))
    return UserEncoder(folded).requires_grad_(False).eval(), scorer.requires_grad_(False).eval()


def _without_tables(model: NeuralScorer) -> NeuralScorer:
    # The scorer reads no embedding: leave those to the user encoder.
    slim = copy.copy(model)
    slim._modules = {name: module for name, module in model._modules.items() if name in {"score_network"}}
    slim._buffers = {}
    return slim
