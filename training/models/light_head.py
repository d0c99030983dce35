"""The light head: an inner product that imitates the scorer, trained beside it, without a trace. Not the paper's.

    light score of item v for user u  =  <w_u, x_v>  =  <network(u), projection(e_v)> + bias(e_v)

The bias is the last column of x_v, where w_u holds 1. It reads what the scorer has made of user and item; the gradient
stops there.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

_BIAS_WIDTH = 64
_RECENT = 10
"""So many of the last behaviours are also averaged apart."""


class LightHead(nn.Module):
    """Two networks: user -> w_u, item -> x_v, both `width` wide.

    x_v is a function of e_v, so items that were rarely or never seen get one as good as their e_v, and neighbours in
    the graph, near each other in e_v, have light scores near each other: it can be walked.

    Args:
        user_dim: width of the user network's output.
        vector_dim: width of e_v.
        width: of w_u and x_v, the bias included.
        hidden: of the networks' hidden layers.
    """

    def __init__(self, user_dim: int, vector_dim: int, width: int, hidden: int) -> None:
        super().__init__()
        self.user_network = _with_shortcut(user_dim + 2 * vector_dim + 1, (hidden, hidden), width - 1)
        self.item_network = _with_shortcut(vector_dim, (hidden // 2,), width - 1)
        self.bias_network = _with_shortcut(vector_dim, (_BIAS_WIDTH,), 1)

    def user_vectors(self, user: Tensor, vectors: Tensor, known: Tensor) -> Tensor:
        """w_u of B users.

        Args:
            user: `float[B, user_dim]`, the user network's output.
            vectors: `float[B, L, vector_dim]`, e_v of the behaviours; any number where padded.
            known: `bool[B, L]`, which behaviours are real.

        Returns:
            `float[B, width]`.
        """
        count = known.sum(dim=1, keepdim=True).clamp(min=1)
        # The user network sums its behaviours: without its scale a long history is not far from a short one.
        summary = torch.cat(
            [
                user / count.sqrt(),
                _mean(vectors, known),
                _mean(vectors[:, -_RECENT:], known[:, -_RECENT:]),
                count.log(),
            ],
            dim=1,
        )
        w = self.user_network(summary)
        return torch.cat([w, torch.ones_like(w[:, :1])], dim=1)

    def item_vectors(self, vectors: Tensor) -> Tensor:
        """x_v: `float[..., vector_dim]` e_v -> `float[..., width]`."""
        return torch.cat([self.item_network(vectors), self.bias_network(vectors)], dim=-1)


class _Shortcut(nn.Module):
    """A network and a linear map of the same input, added: what is linear need not pass the hidden layers."""

    def __init__(self, network: nn.Module, width_in: int, width_out: int) -> None:
        super().__init__()
        self.network = network
        self.linear = nn.Linear(width_in, width_out, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x) + self.linear(x)


def _with_shortcut(width_in: int, hidden: tuple[int, ...], width_out: int) -> _Shortcut:
    layers: list[nn.Module] = []
    width = width_in
    for size in hidden:
        layers += [nn.Linear(width, size), nn.PReLU()]
        width = size
    return _Shortcut(nn.Sequential(*layers, nn.Linear(width, width_out)), width_in, width_out)


def _mean(vectors: Tensor, known: Tensor) -> Tensor:
    """Mean over the real ones, zero where there are none: float[B, L, d] -> float[B, d]."""
    return (vectors * known[..., None]).sum(dim=1) / known.sum(dim=1, keepdim=True).clamp(min=1)
