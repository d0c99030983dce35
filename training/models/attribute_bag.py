"""What describes an item besides its id: any number of codes (category, brand, ...), embedded and pooled."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn


class AttributeBag(nn.Module):
    """The sum of an item's code embeddings, divided by the root of their number.

    Args:
        indptr: `int64[N + 1]`, item v's codes are at `indptr[v]:indptr[v + 1]`.
        codes: `int[nnz]`, from 0 to `count` - 1.
        count: number of codes.
        dim: width of the embedding.
    """

    indptr: Tensor
    codes: Tensor

    def __init__(self, indptr: Tensor, codes: Tensor, count: int, dim: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(count, dim)
        nn.init.normal_(self.embedding.weight, std=0.05)
        self.register_buffer("indptr", indptr.long())
        self.register_buffer("codes", codes.long())

    def forward(self, items: Tensor) -> Tensor:
        """int64[M] item indices -> float[M, dim]; zeros for an item without codes."""
        first = self.indptr[items]
        counts = self.indptr[items + 1] - first
        ends = counts.cumsum(0)
        places = torch.arange(int(ends[-1]), device=items.device) + (first - ends + counts).repeat_interleave(counts)
        pooled = F.embedding_bag(self.codes[places], self.embedding.weight, ends - counts, mode="sum")
        return pooled / counts.clamp(min=1).sqrt()[:, None]

    def pool(self, codes: Tensor) -> Tensor:
        """The same of items given by their codes: int[M, W], -1 = padding -> float[M, dim]."""
        known = codes >= 0
        pooled = (self.embedding(codes.clamp(min=0)) * known[..., None]).sum(dim=1)
        return pooled / known.sum(dim=1, keepdim=True).clamp(min=1).sqrt()
