"""The two served modules of a `KernelScorer`.

`user_state` is flat: `keys | weights | gates | light`, and only `light`, which is [u, 1], without heads.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ..models.kernel_scorer import MAX_SIMILARITY, KernelItem, KernelScorer

_SHIFT = MAX_SIMILARITY / 2
"""log(1 + sum e^g) = s + log(e^-s + sum e^(g - s)): shifted, the exponentials fit half precision."""


class KernelUserEncoder(nn.Module):
    """(behaviors int32[B, L], profile_codes int32[B, P]) -> user_state float32[B, S].

    A table holds k_b of each item, so that attributes are looked up once, at the export.
    """

    behaviors: Tensor

    def __init__(self, model: KernelScorer, behavior_vectors: Tensor) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("behaviors", behavior_vectors)

    def forward(self, behaviors: Tensor, profile_codes: Tensor) -> Tensor:
        """Everything of the user that the scorer needs, in one row."""
        known = behaviors >= 0
        user = self.model.context_of(
            nn.functional.embedding(behaviors.clamp(min=0), self.behaviors), known, profile_codes
        )
        light = self.model.light_of(user)
        if not self.model.heads_on:
            return light
        return torch.cat([user.keys.transpose(2, 3).flatten(1), user.weights.flatten(1), user.gates, light], dim=1)


class KernelTableScorer(nn.Module):
    """(user_state float32[B, S], candidates int32[B, C]) -> candidate_scores float32[B, C].

    A table holds the item's side: `e_v | queries | gates`, and only e_v without heads.
    """

    items: Tensor

    def __init__(self, model: KernelScorer, items: KernelItem) -> None:
        super().__init__()
        self.length, self.width = model.config.sequence_length, model.config.vector_dim
        self.heads = model.kernel.heads if model.heads_on else 0
        parts = [items.vector, items.queries.flatten(1), items.gates] if self.heads else [items.vector]
        self.register_buffer("items", torch.cat(parts, dim=1))

    def forward(self, user_state: Tensor, candidates: Tensor) -> Tensor:
        """Scores; padding (-1) gets the score of item 0, which the caller ignores."""
        items = nn.functional.embedding(candidates.clamp(min=0), self.items)
        heads, keys = self.heads, self.heads * self.length * (self.width - 1)
        if not heads:
            return (items @ user_state[:, :, None]).squeeze(-1)
        sizes = [keys, heads * self.length, heads, self.width]
        user_keys, weights, user_gates, light = user_state.split(sizes, dim=1)
        vectors, queries, item_gates = items.split([self.width, heads * (self.width - 1), heads], dim=2)
        similarities = queries.unflatten(2, (heads, self.width - 1)).transpose(1, 2) @ user_keys.unflatten(
            1, (heads, self.width - 1, self.length)
        )  # [B, H, C, L]
        found = (similarities.clamp(max=MAX_SIMILARITY) - _SHIFT).exp() @ weights.unflatten(1, (heads, self.length))[
            ..., None
        ]
        evidence = _SHIFT + (found.squeeze(3) + math.exp(-_SHIFT)).log()  # [B, H, C]
        inner = (vectors @ light[:, :, None]).squeeze(-1)
        scores: Tensor = inner + (evidence * (item_gates + user_gates[:, None]).transpose(1, 2)).sum(dim=1)
        return scores
