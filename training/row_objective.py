"""The loss of one step on rows of contexts: sampled softmax over candidates that the whole batch shares."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from .config import LossConfig
from .losses import EXCLUDED
from .models.kernel_scorer import KernelScorer
from .objective import Losses, adversarial_loss
from .row_sampling import Contexts, RowBatch


class RowObjective(nn.Module):
    """L_NCE of a batch of rows, and weight * L_AUX on some of its contexts, as a module."""

    def __init__(self, model: KernelScorer, config: LossConfig) -> None:
        super().__init__()
        self.model = model
        self.config = config

    def forward(self, batch: RowBatch) -> Losses:
        """Losses of one batch."""
        model = self.model
        model.begin_step()
        embedded = model.embed(batch.items)  # [M, d - 1]
        behaviors = model.dropout(F.embedding(batch.rows.behaviors, embedded))
        candidates = model.dropout(F.embedding(batch.candidates, embedded))
        vectors = model.to_vectors(candidates, batch.items[batch.candidates])
        scores = model.score_rows(batch.rows, behaviors, vectors).float()
        nce = shared_softmax_loss(scores + self._discount(batch), batch, self.config)
        auxiliary = light = torch.zeros_like(nce)
        if batch.contexts is not None:
            auxiliary = self._auxiliary(batch.contexts, batch)
        return Losses(nce + self.config.auxiliary.weight * auxiliary, nce.detach(), auxiliary.detach(), light)

    def _discount(self, batch: RowBatch) -> Tensor:
        """What the score leaves out of the log odds that the loss fits, `float[C]`: a share of the log popularity."""
        return self.config.popularity_discount * self.model.log_popularity[batch.items[batch.candidates]]

    def _auxiliary(self, contexts: Contexts, batch: RowBatch) -> Tensor:
        """L_AUX of some of the contexts."""
        model = self.model
        user = model.user_context(contexts.behaviors, contexts.profile_codes)
        items = batch.items[batch.candidates][contexts.candidates]
        correction = batch.log_expected[contexts.candidates]
        correction[:, 0] = 0  # a target is in its batch for certain
        correction = correction - self._discount(batch)[contexts.candidates]
        return adversarial_loss(model, user, items, self.config, lambda clean: clean - correction)


def shared_softmax_loss(scores: Tensor, batch: RowBatch, config: LossConfig) -> Tensor:
    """Each target against the candidates that are no target of its context, weighted by `config.basket_power`.

    The correction makes the sum over candidates an estimate of the sum over all items: each counts once for each time
    that it is expected in a batch. The row's own items are in its batch for certain.

    Args:
        scores: `float[R, G, C]`.
        batch: which candidates are targets, with their log probability to be in a batch.
        config: with own items "masked", the row's own are no negatives; "kept": they are, uncorrected.
    """
    if config.own_items == "masked":
        noise = (scores - batch.log_expected).masked_fill(batch.own[:, None], EXCLUDED)
    else:
        noise = scores - batch.log_expected * ~batch.own[:, None]
    noise = noise.flatten(0, 1)
    excluded = torch.zeros_like(noise, dtype=torch.bool)
    excluded[batch.target_contexts, batch.targets] = True
    total = noise.masked_fill(excluded, EXCLUDED).logsumexp(dim=1)  # [R G]
    found = scores.flatten(0, 1)[batch.target_contexts, batch.targets]
    each = F.softplus(total[batch.target_contexts] - found)
    share = torch.bincount(batch.target_contexts)[batch.target_contexts] ** (config.basket_power - 1)
    return (each * share).sum() / share.sum()
