"""Items that are known by what describes them alone: in their place in the id embedding stands one learned vector."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class UnknownIds(nn.Module):
    """Which items have no id of their own: those that training never saw, and in training a random share of the others.

    An item is without its id as a candidate and as a behaviour alike, for a whole step: a new item must be found by
    users of old items, and users of new items must find others. All terms of a step's loss see the same items so.

    Args:
        seen: `bool[N]`, the items that training sees.
        share: of the items that a step takes the id from.
        width: of the id embedding.
    """

    unseen: Tensor

    def __init__(self, seen: Tensor, share: float, width: int) -> None:
        super().__init__()
        self.share = share
        self.vector = nn.Parameter(torch.zeros(width))
        self.register_buffer("unseen", ~seen, persistent=False)  # the data set has it
        self._drawn: Tensor | None = None

    def draw(self) -> None:
        """Begins a step: draws the items that it takes the id from."""
        self._drawn = self.unseen | (torch.rand(len(self.unseen), device=self.unseen.device) < self.share)

    def forward(self, items: Tensor) -> Tensor:
        """Whether each item is without its id: int64[...] item indices -> bool[..., 1]."""
        unknown = self._drawn if self.training and self._drawn is not None else self.unseen
        return unknown[items][..., None]

    def replace(self, embedded: Tensor, items: Tensor) -> Tensor:
        """The id embedding, float[..., width], of items int64[...], with `vector` where the id is unknown."""
        return torch.where(self(items), self.vector.to(embedded.dtype), embedded)
