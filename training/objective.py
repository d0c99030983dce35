"""The loss of one training step, as a module: DistributedDataParallel needs a single forward."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from .config import LossConfig
from .losses import auxiliary_loss, corrected_logits, distillation_loss, fgsm_perturbation, nce_loss
from .models.neural_scorer import NeuralScorer, UserContext
from .models.scorer import AnyScorer, map_parts


class Batch(NamedTuple):
    """One batch of examples.

    Attributes:
        behaviors: `int32[B, L]` item indices, -1 = padding.
        profile_codes: `int32[B, P]`.
        items: `int64[M]`, the distinct items among the candidates, so that the item side is computed once for each.
        candidates: `int64[B, P + C]` positions in `items`; the positives first, then the negatives they share.
        is_positive: `bool[B, P]`, which positives are real and not padding; the first always is.
    """

    behaviors: Tensor
    profile_codes: Tensor
    items: Tensor
    candidates: Tensor
    is_positive: Tensor

    def to(self, device: torch.device) -> Batch:
        """The same batch on another device."""
        return Batch(*(tensor.to(device, non_blocking=True) for tensor in self))

    @property
    def example_count(self) -> int:
        """Contexts."""
        return len(self.behaviors)


class Losses(NamedTuple):
    """The terms of eq. 3, and the light head's, which gives the scorer no gradient. Only `total` is differentiable."""

    total: Tensor
    nce: Tensor
    auxiliary: Tensor
    light: Tensor


class TrainingObjective(nn.Module):
    """L_NCE + weight * L_AUX of a batch (eq. 3), and the light head's loss if the model has one.

    `item_counts`, `int64[N]`, are occurrences in the training log: the unigram distribution of the negatives.
    """

    log_expected_count: Tensor

    def __init__(self, model: NeuralScorer, config: LossConfig, item_counts: Tensor) -> None:
        super().__init__()
        self.model = model
        self.config = config
        # Items without a training user are never drawn; the floor keeps their logarithm finite.
        probability = item_counts.clamp(min=1).float() / item_counts.sum()
        log_expected = probability.log() + torch.tensor(config.negatives).log()
        self.register_buffer("log_expected_count", log_expected, persistent=False)

    def forward(self, batch: Batch) -> Losses:
        """Losses of one batch."""
        self.model.begin_step()
        user = self.model.user_context(batch.behaviors, batch.profile_codes)
        features = self.model.item_features(self.model.item_vectors(batch.items), batch.items)
        pairs = map_parts(features, lambda part: F.embedding(batch.candidates, part))
        logits = self.model.score(user, pairs).float()
        corrected = self._corrected(logits, batch.items, batch.candidates, batch.is_positive)
        nce = nce_loss(corrected, batch.is_positive, self.config.nce)
        auxiliary = light = torch.zeros_like(nce)
        # Always in float32: bfloat16 would round away a Delta of eps in e_v.
        with _running_statistics(self.model), torch.autocast(logits.device.type, enabled=False):
            if self.config.auxiliary.reading != "none" and self.config.auxiliary.weight != 0:
                user = map_parts(user, Tensor.float)
                auxiliary = self._auxiliary(user, batch)
        if self.model.light is not None:
            with _running_statistics(self.model):  # e_v as it is served
                light = self._light(batch, corrected.detach())
        total = nce + self.config.auxiliary.weight * auxiliary + light
        return Losses(total, nce.detach(), auxiliary.detach(), light.detach())

    def _light(self, batch: Batch, target: Tensor) -> Tensor:
        """The light head's loss against the scorer's corrected scores, `target` (`float[B, P + C]`)."""
        assert self.model.light is not None
        with torch.no_grad():
            vectors = self.model.item_vectors(batch.items)  # [M, d]
        items = F.embedding(batch.candidates, self.model.light_items(vectors).float())  # [B, P + C, width]
        users = self.model.light_users(batch.behaviors, batch.profile_codes).float()  # [B, width]
        scores = (items * users[:, None]).sum(dim=2)
        corrected = self._corrected(scores, batch.items, batch.candidates, batch.is_positive)
        valid = target.isfinite()  # negatives that hit a positive are not
        valid[:, : batch.is_positive.shape[1]] &= batch.is_positive
        return distillation_loss(corrected, target, valid)

    def _auxiliary(self, user: UserContext, batch: Batch) -> Tensor:
        """L_AUX over the first positive of each context and its negatives, as many as configured."""
        negatives = batch.candidates[:, batch.is_positive.shape[1] :]
        candidates = torch.cat([batch.candidates[:, :1], negatives], dim=1)[:, : self.config.auxiliary.candidates]
        first = batch.is_positive[:, :1]

        def correct(clean: Tensor) -> Tensor:
            return self._corrected(clean, batch.items, candidates, first)

        return adversarial_loss(self.model, user, batch.items[candidates], self.config, correct)

    def _corrected(self, logits: Tensor, items: Tensor, candidates: Tensor, is_positive: Tensor) -> Tensor:
        positives, negatives = candidates.tensor_split([is_positive.shape[1]], dim=1)
        hits = (negatives[:, :, None] == positives[:, None, :]).any(dim=2)
        return corrected_logits(logits, self.log_expected_count[items][candidates], hits)


def adversarial_loss(
    model: AnyScorer, user: Any, items: Tensor, config: LossConfig, correct: Callable[[Tensor], Tensor]
) -> Tensor:
    """L_AUX of B users and C candidates each, the first of them positive, averaged over users.

    Args:
        model: the scorer.
        user: its side of the B users.
        items: `int[B, C]` item indices.
        config: which reading, and Delta's size.
        correct: the logQ correction of their scores, `float[B, C]`.
    """
    settings = config.auxiliary
    vectors = model.item_vectors(items)  # [B, C, d]: each pair has its own Delta
    clean = model.score(user, model.item_features(vectors, items))
    objective = clean.sum()
    if settings.reading == "row_kl":
        first = torch.ones(len(clean), 1, dtype=torch.bool, device=clean.device)
        objective = nce_loss(correct(clean), first, config.nce) * len(clean)
    delta = fgsm_perturbation(objective, vectors, settings.epsilon)
    perturbed = model.score(user, model.item_features(vectors + delta, items))
    return auxiliary_loss(clean, perturbed, settings.reading)


@contextmanager
def _running_statistics(model: nn.Module) -> Iterator[None]:
    """Batch norm in evaluation mode: the losses concern the served function, and must not update the statistics."""
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm1d) and module.training]
    for norm in norms:
        norm.eval()
    try:
        yield
    finally:
        for norm in norms:
            norm.train()
