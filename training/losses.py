"""L_all = L_NCE + L_AUX (paper, eq. 3): noise-contrastive estimation and the adversarial auxiliary loss.

And what the light head is trained with, which is not the paper's and no part of L_all: `distillation_loss`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor


def corrected_logits(logits: Tensor, log_expected_count: Tensor, hits: Tensor) -> Tensor:
    """Scores minus log(expected count) (logQ), with negatives that hit a positive item of their row taken out.

    Args:
        logits: `float[B, P + C]`, positives first.
        log_expected_count: `float[B or 1, P + C]`, log(number of negatives * unigram probability) of each candidate.
        hits: `bool[B, C]`, negatives that are a positive item of the row.
    """
    corrected = logits - log_expected_count
    positives, negatives = corrected.tensor_split([logits.shape[1] - hits.shape[1]], dim=1)
    return torch.cat([positives, negatives.masked_fill(hits, float("-inf"))], dim=1)


def nce_loss(corrected: Tensor, is_positive: Tensor, kind: str) -> Tensor:
    """L_NCE: each positive against the negatives of its row, mean over positives.

    Args:
        corrected: `float[B, P + C]` from `corrected_logits`.
        is_positive: `bool[B, P]`, which of the first P are real positives; the others are left out.
        kind: "binary": logistic regression of each candidate, positive against noise (Gutmann and Hyvarinen 2010);
            "ranking": cross-entropy of a positive among itself and the negatives (Ma and Collins 2018; sampled
            softmax).
    """
    positives, negatives = corrected.tensor_split([is_positive.shape[1]], dim=1)
    if kind == "ranking":
        each = F.softplus(negatives.logsumexp(dim=1, keepdim=True) - positives)  # [B, P]
    else:
        each = -F.logsigmoid(positives) - F.logsigmoid(-negatives).sum(dim=1, keepdim=True)  # [B, P]
    return (each * is_positive).sum() / is_positive.sum()


def fgsm_perturbation(objective: Tensor, vectors: Tensor, epsilon: float) -> Tensor:
    """Delta = eps * sign(gradient of `objective` with respect to e_v) (eq. 6), detached: float[B, C, d]."""
    (gradient,) = torch.autograd.grad(objective, vectors, retain_graph=True)
    return epsilon * gradient.sign()


def auxiliary_loss(clean: Tensor, perturbed: Tensor, reading: str) -> Tensor:
    """How much the scores move under Delta; mean over rows.

    Args:
        clean: `float[B, C]` scores s_u(e_v).
        perturbed: `float[B, C]` scores s_u(e_v + Delta).
        reading: "eq5": the sum over candidates of s log(s / s'), s the sigmoid of the score, as eq. 5 is printed. The
            gradient goes through both: with the clean side stopped the sum, which is not normalised, would only push
            every score up. "row_kl": KL divergence of the softmax over the row, clean (stopped) against perturbed, as
            in the authors' public code.
    """
    if reading == "eq5":
        return (clean.sigmoid() * (F.logsigmoid(clean) - F.logsigmoid(perturbed))).sum(dim=1).mean()
    target = clean.detach().log_softmax(dim=1)
    return F.kl_div(perturbed.log_softmax(dim=1), target, reduction="batchmean", log_target=True)


def distillation_loss(light: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """KL divergence of the row's softmax over its candidates, the scorer's against the light head's; mean over rows.

    With the logQ correction in both, candidates that were drawn by popularity stand for the whole corpus. Chosen in
    small trainings by what the seeded walk then scores for a coverage of 0.95: with scores softened by a temperature it
    had to score more; with plain regression of the centred scores, whose short lists hold more of the scorer's top K
    and whose long ones hold less, it did not get there; without the correction lists of every length held less.

    Args:
        light: `float[B, C]`, light scores, corrected.
        target: `float[B, C]`, the scorer's, corrected; no gradient goes there.
        valid: `bool[B, C]`, which candidates count; at least one a row.
    """
    target, light = (scores.masked_fill(~valid, _EXCLUDED).log_softmax(dim=1) for scores in (target.detach(), light))
    return F.kl_div(light, target, reduction="batchmean", log_target=True)


_EXCLUDED = -1e9
"""In place of minus infinity, which would make 0 * infinity of a divergence."""
