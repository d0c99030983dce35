"""Building blocks shared by the item, attention and score networks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class LastDimBatchNorm(nn.BatchNorm1d):
    """Batch norm over the last dimension of a tensor of any rank: float[..., width] -> float[..., width]."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalises over all leading dimensions."""
        return super().forward(x.reshape(-1, x.shape[-1])).reshape(x.shape)


def hidden_block(width_in: int, width_out: int) -> nn.Sequential:
    """FC -> batch norm -> PReLU; the norm stands before the activation, so that serving can fold it into the FC."""
    return nn.Sequential(nn.Linear(width_in, width_out), LastDimBatchNorm(width_out), nn.PReLU())


def item_network(width_in: int, widths: Sequence[int]) -> nn.Sequential:
    """The item network: hidden blocks, then a plain FC as in the paper's figure, so that e_v may be negative."""
    blocks: list[nn.Module] = []
    for width in widths[:-1]:
        blocks.append(hidden_block(width_in, width))
        width_in = width
    return nn.Sequential(*blocks, nn.Linear(width_in, widths[-1]))


def projection(width_in: int, hidden: int, width_out: int) -> nn.Sequential:
    """The target attention's key or query network: FC(PReLU, hidden) -> FC(width_out)."""
    return nn.Sequential(nn.Linear(width_in, hidden), nn.PReLU(), nn.Linear(hidden, width_out))


class ProfileTransformer(nn.Module):
    """User profile fields through one Transformer layer, mean-pooled: int[B, P] codes -> float[B, d_model]."""

    starts: Tensor

    def __init__(self, field_sizes: Sequence[int], d_model: int, heads: int, feed_forward: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(sum(field_sizes), d_model)
        nn.init.normal_(self.embedding.weight, std=0.05)
        starts = torch.tensor([0, *field_sizes]).cumsum(0)[:-1]
        self.register_buffer("starts", starts, persistent=False)
        self.encoder = nn.TransformerEncoderLayer(d_model, heads, feed_forward, dropout=0.0, batch_first=True)

    def forward(self, codes: Tensor) -> Tensor:
        """Embeds every field in its own range of one table and pools the encoded fields."""
        return self.encoder(self.embedding(codes.long() + self.starts)).mean(dim=1)


def fold_batch_norm(module: nn.Module) -> None:
    """Folds each batch norm after a Linear of a Sequential into that Linear, in place (evaluation mode only)."""
    for child in module.children():
        fold_batch_norm(child)
    if not isinstance(module, nn.Sequential):
        return
    for i in range(len(module) - 1):
        linear, norm = module[i], module[i + 1]
        if isinstance(linear, nn.Linear) and isinstance(norm, nn.BatchNorm1d):
            module[i] = nn.utils.fuse_linear_bn_eval(linear, norm)
            module[i + 1] = nn.Identity()


def fix_slopes(module: nn.Module) -> None:
    """Replaces each PReLU by a LeakyReLU with its learned slope, in place.

    The function is the same, but onnxruntime fuses only activations without weights into the product before them.
    """
    for name, child in module.named_children():
        fix_slopes(child)
        if isinstance(child, nn.PReLU) and child.num_parameters == 1:
            setattr(module, name, nn.LeakyReLU(float(child.weight.detach())))
