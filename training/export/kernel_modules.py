"""The served modules of a `KernelScorer`.

`user_state` is flat: `keys | weights` with heads, `digits of the behaviours | weights` with repeats, `gates` with
any of them, and `light`, which is [u, 1].
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import reduce

import torch
from torch import Tensor, nn

from ..models.kernel_scorer import MAX_SIMILARITY, KernelItem, KernelScorer

ROOM = 2
"""Rows have digits for so many times the items of the model: for new ones."""
_DIGIT = 2048
"""Item indices are written to this base in the user state: half precision has every whole number up to it."""
_SHIFT = MAX_SIMILARITY / 2
"""log(1 + sum e^g) = s + log(e^-s + sum e^(g - s)): shifted, the exponentials fit half precision."""


class KernelUserEncoder(nn.Module):
    """(behaviors int32[B, L], profile_codes int32[B, P]) -> user_state float32[B, S].

    A table holds k_b of each item, so that attributes are looked up once, at the export.
    """

    behaviors: Tensor

    def __init__(self, model: KernelScorer, behavior_vectors: Tensor, digits: int) -> None:
        super().__init__()
        self.model = model
        self.digits = digits
        self.register_buffer("behaviors", behavior_vectors)

    def forward(self, behaviors: Tensor, profile_codes: Tensor) -> Tensor:
        """Everything of the user that the scorer needs, in one row."""
        vectors = nn.functional.embedding(behaviors.clamp(min=0), self.behaviors)
        user = self.model.context_of(vectors, behaviors, profile_codes)
        parts = []
        if self.model.heads_on:
            parts += [user.keys.transpose(2, 3).flatten(1), user.weights.flatten(1)]
        if self.model.kernel.repeats:
            parts += [digit.float() for digit in _digits(user.behaviors.clamp(min=0), self.digits)]
            parts.append(user.repeat_weights)
        if parts:
            parts.append(user.gates)
        return torch.cat([*parts, self.model.light_of(user)], dim=1)


class KernelRowScorer(nn.Module):
    """(user_state float32[B, S], candidate_rows float32[B, C, R]) -> candidate_scores float32[B, C].

    A row holds the item's side: `e_v | queries | gates | digits of the item's index`. Digits are there with repeats
    only, and queries and gates only where the score is more than an inner product.
    """

    def __init__(self, model: KernelScorer, items: KernelItem, digits: int) -> None:
        super().__init__()
        self.width = model.config.vector_dim
        self.heads = model.kernel.heads if model.heads_on else 0
        self.attended = model.head_recency.shape[1]
        self.repeats = len(model.repeat_recency)
        self.digits = digits
        self.evidences = items.gates.shape[1]

    def forward(self, user_state: Tensor, candidate_rows: Tensor) -> Tensor:
        """Scores."""
        own, digits = candidate_rows.split([self.own_width, self.digits if self.repeats else 0], dim=2)
        return self.score(user_state, own, digits.unbind(dim=2))

    @property
    def own_width(self) -> int:
        """Columns of a row before the digits."""
        return self.width + self.heads * (self.width - 1) + self.evidences

    def own_rows(self, items: KernelItem) -> Tensor:
        """The rows of items without the digits: float32[N, any]."""
        parts = [items.vector, items.gates]
        if self.heads:
            parts.insert(1, items.queries.flatten(1))
        return torch.cat(parts, dim=1)

    def rows(self, items: KernelItem) -> Tensor:
        """The rows of items: float32[N, R]."""
        digits = _digits(items.item, self.digits) if self.repeats else []
        return torch.cat([self.own_rows(items), *(digit[:, None].float() for digit in digits)], dim=1)

    def score(self, user_state: Tensor, items: Tensor, digits: Sequence[Tensor]) -> Tensor:
        """Scores of items by `e_v | queries | gates`, `float[B, C, any]`, and each digit of their index, `[B, C]`."""
        depth = self.width - 1
        sizes = [self.heads * self.attended * depth, self.heads * self.attended]
        sizes += [self.repeats * self.digits, self.repeats, self.evidences, self.width]
        keys, weights, behaviors, repeat_weights, user_gates, light = user_state.split(sizes, dim=1)
        vectors, queries, item_gates = items.split([self.width, self.heads * depth, self.evidences], dim=2)
        inner: Tensor = (vectors @ light[:, :, None]).squeeze(-1)
        found = []
        if self.heads:
            queries = queries.unflatten(2, (self.heads, depth)).transpose(1, 2)  # [B, H, C, d - 1]
            similarities = queries @ keys.unflatten(1, (self.heads, depth, self.attended))  # [B, H, C, A]
            shifted = (similarities.clamp(max=MAX_SIMILARITY) - _SHIFT).exp()
            found.append((shifted @ weights.unflatten(1, (self.heads, self.attended))[..., None]).squeeze(3))
        if self.repeats:
            pairs = zip(digits, behaviors.split(self.repeats, dim=1), strict=True)
            equal = [mine[:, :, None] == theirs.to(mine.dtype)[:, None] for mine, theirs in pairs]  # [B, C, L] each
            same = reduce(torch.logical_and, equal)
            found.append((same.to(items.dtype) @ repeat_weights[:, :, None] * math.exp(-_SHIFT)).transpose(1, 2))
        if not found:
            return inner
        evidence = _SHIFT + (torch.cat(found, dim=1) + math.exp(-_SHIFT)).log()  # [B, E, C]
        gates = (item_gates + user_gates[:, None]).transpose(1, 2)
        scores: Tensor = inner + (evidence * gates).sum(dim=1)
        return scores


class KernelTableScorer(KernelRowScorer):
    """(user_state float32[B, S], candidates int32[B, C]) -> candidate_scores float32[B, C]; a table holds the rows."""

    items: Tensor

    def __init__(self, model: KernelScorer, items: KernelItem, digits: int) -> None:
        super().__init__(model, items, digits)
        self.register_buffer("items", self.own_rows(items))

    def forward(self, user_state: Tensor, candidates: Tensor) -> Tensor:
        """Scores; padding (-1) gets the score of item 0, which the caller ignores."""
        items = nn.functional.embedding(candidates.clamp(min=0), self.items)
        return self.score(user_state, items, _digits(candidates.clamp(min=0), self.digits) if self.repeats else [])


def digit_count(items: int) -> int:
    """How many digits the indices of so many items have."""
    return 1 if items <= _DIGIT else 1 + digit_count(-(-items // _DIGIT))


def _digits(items: Tensor, count: int) -> list[Tensor]:
    """The last `count` digits of indices, lowest first: int of the same shape each."""
    digits = [items % _DIGIT]
    while len(digits) < count:
        items = items // _DIGIT
        digits.append(items % _DIGIT)
    return digits
