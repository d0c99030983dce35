"""A scorer of your own: several interests per user, and an MLP that compares an item with the interest that fits it.

Two plain torch modules that follow the contract of docs/custom_scorer.md and import nothing of this project.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

EMPTY = -1e9
"""Attention logit of padding: its exp() is 0, and unlike -inf it keeps the softmax finite without behaviours."""


class InterestEncoder(nn.Module):
    """(behaviors int32[B, L], profile_codes int32[B, P]) -> user_state float32[B, K * d + d + 1].

    Each of K interests pools the behaviours with its own attention. The logit of a behaviour falls with its age, at a
    rate that is learned per interest. The user state is flat: `interests [K, d] | newest item [d] | log history length
    [1]`. Only `InterestScorer` knows this layout.

    Args:
        items: the item embedding, float32[N, d].
        interests: K.
    """

    def __init__(self, items: nn.Embedding, interests: int) -> None:
        super().__init__()
        self.items = items
        dim = items.embedding_dim
        self.attention = nn.Sequential(nn.Linear(dim, 2 * dim), nn.Tanh(), nn.Linear(2 * dim, interests))
        self.forgetting = nn.Parameter(torch.linspace(-5.0, 0.0, interests))

    def forward(self, behaviors: Tensor, profile_codes: Tensor) -> Tensor:
        """Encodes users; `behaviors` are item indices, oldest first, padded on the left with -1."""
        known = behaviors >= 0  # [B, L]
        # `embedding`, not `weight[...]`: the ONNX form of indexing refuses int32 indices.
        embedded = functional.embedding(behaviors.clamp(min=0), self.items.weight) * known.unsqueeze(-1)  # [B, L, d]
        age = torch.arange(behaviors.shape[1] - 1, -1, -1, device=behaviors.device).unsqueeze(-1)  # [L, 1]
        logits = self.attention(embedded) - functional.softplus(self.forgetting) * age  # [B, L, K]
        weights = logits.masked_fill(~known.unsqueeze(-1), EMPTY).softmax(dim=1)
        interests = weights.transpose(1, 2) @ embedded  # [B, K, L] @ [B, L, d] -> [B, K, d]
        length = known.sum(dim=1, keepdim=True).float().log1p()  # [B, 1]
        return torch.cat([interests.flatten(1), embedded[:, -1], length], dim=1)


class InterestScorer(nn.Module):
    """(user_state float32[B, S], candidates int32[B, C]) -> scores float32[B, C].

    A candidate attends to the interests, then an MLP compares it with the result. A score depends on the item only
    through its embedding, and continuously. That is why a graph on the embeddings can be searched for the best scores.

    Args:
        items: the same item embedding, float32[N, d].
        interests: K.
        hidden: width of the MLP.
    """

    def __init__(self, items: nn.Embedding, interests: int, hidden: int = 64) -> None:
        super().__init__()
        self.items = items
        self.interests = interests
        self.sharpness = nn.Parameter(torch.tensor(4.0))
        self.mlp = nn.Sequential(nn.Linear(2 * items.embedding_dim + 4, hidden), nn.SiLU(), nn.Linear(hidden, 1))

    def forward(self, user_state: Tensor, candidates: Tensor) -> Tensor:
        """Scores candidates; padding (-1) gets the score of item 0, which the caller ignores."""
        return self.score(user_state, functional.embedding(candidates.clamp(min=0), self.items.weight))

    def score(self, user_state: Tensor, items: Tensor) -> Tensor:
        """Scores candidates by their embeddings, float32[B, C, d]: all that a scorer with item rows does."""
        dim = items.shape[-1]
        flat, newest, length = user_state.split([self.interests * dim, dim, 1], dim=1)
        interests = flat.unflatten(1, (self.interests, dim))  # [B, K, d]
        match = items @ interests.transpose(1, 2)  # [B, C, K]
        interest = (match * self.sharpness).softmax(dim=-1) @ interests  # [B, C, d]
        best, mean = match.amax(dim=-1, keepdim=True), match.mean(dim=-1, keepdim=True)  # [B, C, 1]
        again = items @ newest.unsqueeze(-1)  # [B, C, 1]
        seen = length.unsqueeze(1).expand_as(best)
        features = torch.cat([items * interest, (items - interest).abs(), best, mean, again, seen], dim=-1)
        scores = self.mlp(features) + best  # [B, C, 1]
        return scores.squeeze(-1)
