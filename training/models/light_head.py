"""The light head: an inner product that is trained beside the scorer to imitate it. Not in the paper.

    light score of item v for user u  =  <w_u, x_v>  =  <network(u), projection(e_v)> + bias(e_v)

The bias is the last column of x_v, where w_u is 1. The inputs come from the scorer, which gets no gradient from them.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

_BIAS_WIDTH = 64
_RECENT = 10
"""How many of the last behaviours are also averaged separately."""


class LightHead(nn.Module):
    """Two networks: user -> w_u, item -> x_v, both `width` wide, the bias included.

    x_v is a function of e_v. So rarely seen items have one too, and neighbours in the graph, whose e_v are close, have
    similar light scores: a search can follow them.
    """

    def __init__(self, user_dim: int, vector_dim: int, width: int, hidden: int) -> None:
        super().__init__()
        self.user_network = _Shortcut(user_dim + 2 * vector_dim + 1, (hidden, hidden), width - 1)
        self.item_network = _Shortcut(vector_dim, (hidden // 2,), width - 1)
        self.bias_network = _Shortcut(vector_dim, (_BIAS_WIDTH,), 1)

    def user_vectors(self, user: Tensor, vectors: Tensor, known: Tensor) -> Tensor:
        """w_u of B users: `float[B, width]`.

        Args:
            user: `float[B, user_dim]`, the user network's output.
            vectors: `float[B, L, vector_dim]`, e_v of the behaviours; any number for padding.
            known: `bool[B, L]`, which behaviours are real.
        """
        count = known.sum(dim=1, keepdim=True).clamp(min=1)
        means = _mean(vectors, known), _mean(vectors[:, -_RECENT:], known[:, -_RECENT:])
        # The user network sums its behaviours: scaled, long histories stay close to short ones.
        w = self.user_network(torch.cat([user / count.sqrt(), *means, count.log()], dim=1))
        return torch.cat([w, torch.ones_like(w[:, :1])], dim=1)

    def item_vectors(self, vectors: Tensor) -> Tensor:
        """x_v: `float[..., vector_dim]` e_v -> `float[..., width]`."""
        return torch.cat([self.item_network(vectors), self.bias_network(vectors)], dim=-1)


class _Shortcut(nn.Module):
    """The sum of a network and a linear map of the same input: the hidden layers need not learn the linear part."""

    def __init__(self, width_in: int, hidden: tuple[int, ...], width_out: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, width in pairwise((width_in, *hidden)):
            layers += [nn.Linear(before, width), nn.PReLU()]
        self.network = nn.Sequential(*layers, nn.Linear(hidden[-1], width_out))
        self.linear = nn.Linear(width_in, width_out, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x) + self.linear(x)


def _mean(vectors: Tensor, known: Tensor) -> Tensor:
    """Mean over the known ones, zero if there are none: float[B, L, d] -> float[B, d]."""
    return (vectors * known[..., None]).sum(dim=1) / known.sum(dim=1, keepdim=True).clamp(min=1)
