"""A sequence encoder of your own, as in SASRec: a causal transformer over the behaviours, and an inner product.

Two plain torch modules that follow docs/custom_scorer.md ("Sequence encoders") and import nothing of this project.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

MASKED = -1e9
"""Added to an attention logit: its exp() is 0, and unlike -inf it keeps the softmax finite without behaviours."""


class SasrecEncoder(nn.Module):
    """(behaviors int32[B, L], profile_codes int32[B, P]) -> user_state float32[B, d]: the last place of the sequence.

    A user without behaviours gets the state that the position embeddings alone give, a learned one.

    Args:
        items: the item embedding, float32[N, d].
        length: L.
        layers: transformer layers.
        heads: attention heads; they divide d.
    """

    causal: Tensor

    def __init__(self, items: nn.Embedding, length: int, layers: int = 2, heads: int = 2) -> None:
        super().__init__()
        self.items = items
        dim = items.embedding_dim
        self.positions = nn.Parameter(0.1 * torch.randn(length, dim))
        layer = nn.TransformerEncoderLayer(dim, heads, 4 * dim, dropout=0.1, batch_first=True, norm_first=True)
        self.transformer = nn.TransformerEncoder(layer, layers, nn.LayerNorm(dim), enable_nested_tensor=False)
        self.register_buffer("causal", torch.full((length, length), MASKED).triu(1))  # [L, L]

    def forward(self, behaviors: Tensor, profile_codes: Tensor) -> Tensor:
        """Encodes users; `behaviors` are item indices, oldest first, padded on the left with -1."""
        known = behaviors >= 0  # [B, L]
        embedded = functional.embedding(behaviors.clamp(min=0), self.items.weight) * known.unsqueeze(-1)  # [B, L, d]
        padding = torch.where(known, 0.0, MASKED)  # [B, L]
        # Without is_causal=False torch compares the mask's values with those of a causal one, which stops the export.
        hidden = self.transformer(
            embedded + self.positions, mask=self.causal, src_key_padding_mask=padding, is_causal=False
        )  # [B, L, d]
        state: Tensor = hidden[:, -1]
        return state


class InnerProductScorer(nn.Module):
    """(user_state float32[B, d], candidates int32[B, C]) -> scores float32[B, C].

    Args:
        items: the same item embedding, float32[N, d].
    """

    def __init__(self, items: nn.Embedding) -> None:
        super().__init__()
        self.items = items

    def forward(self, user_state: Tensor, candidates: Tensor) -> Tensor:
        """Scores candidates; padding (-1) gets the score of item 0, which the caller ignores."""
        items = functional.embedding(candidates.clamp(min=0), self.items.weight)  # [B, C, d]
        return (items @ user_state.unsqueeze(-1)).squeeze(-1)  # [B, C, d] @ [B, d, 1] -> [B, C]
