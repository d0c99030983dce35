"""What the terms of the kernel scorer weigh: a behaviour by its age, and each term by user and item."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

_FORGETTING, _FORGETTING_UNTIL = 0.2, 20
"""At the start a behaviour of age a weighs exp(-0.2 min(a, 20))."""
_GATE_SCALE = 0.3


class Gates(nn.Module):
    """How much each of some terms counts, by user and item.

    The item's popularity matters too: that an unpopular item is in the history tells the more.

    Args:
        count: E, how many terms.
        width: d - 1, of a user's vector.
        items: N.
        start: how much each counts before anything is learned.
    """

    def __init__(self, count: int, width: int, items: int, start: float) -> None:
        super().__init__()
        self.usual = -math.log(items)  # popularity if all items had the same
        self.start = nn.Parameter(torch.full((count,), start))
        self.user = nn.Parameter(torch.zeros(count, width))
        self.item = nn.Parameter(torch.zeros(count, width + 1))

    @torch.no_grad()
    def keep_scores(self, items: int) -> None:
        """Makes up for another number of items than the weights were trained with."""
        self.start.add_(_GATE_SCALE * (self.usual + math.log(items)) * self.item[:, -1])

    def of_user(self, vector: Tensor) -> Tensor:
        """float[..., d - 1] -> float[..., count]."""
        return self.start + _GATE_SCALE * vector @ self.user.T

    def of_item(self, vector: Tensor) -> Tensor:
        """e_v, float[..., d] -> float[..., count]."""
        return _GATE_SCALE * (vector @ self.item.T - self.usual * self.item[:, -1])


def by_age(recency: Tensor, ages: Tensor) -> Tensor:
    """exp(recency), float[A], at each age; 0 where the age is not from 0 to A - 1: float, shape of `ages`."""
    return recency.exp()[ages.clamp(0, len(recency) - 1)] * ((ages >= 0) & (ages < len(recency)))


def forgetting(length: int) -> Tensor:
    """Where the logarithms of the weights by age begin: float[length], the latest first."""
    return -_FORGETTING * torch.arange(length).clamp(max=_FORGETTING_UNTIL)
