"""L_all = L_NCE + L_AUX (paper, eq. 3), and the light head's `distillation_loss`, which is not in the paper."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor


def corrected_logits(logits: Tensor, log_expected_count: Tensor, hits: Tensor) -> Tensor:
    """Scores minus log(expected count) (logQ correction); -inf for negatives that are a positive item of their row.

    Args:
        logits: `float[B, P + C]`, positives first.
        log_expected_count: `float[B or 1, P + C]`, log(number of negatives * unigram probability) of each candidate.
        hits: `bool[B, C]`, negatives that are a positive item of the row.
    """
    corrected = logits - log_expected_count
    positives, negatives = corrected.tensor_split([logits.shape[1] - hits.shape[1]], dim=1)
    return torch.cat([positives, negatives.masked_fill(hits, float("-inf"))], dim=1)


def nce_loss(corrected: Tensor, is_positive: Tensor, kind: str) -> Tensor:
    """L_NCE: each positive against the negatives of its row, averaged over positives.

    Args:
        corrected: `float[B, P + C]` from `corrected_logits`.
        is_positive: `bool[B, P]`, which of the first P are real positives; the others are left out.
        kind: "binary": logistic regression of each candidate, positive against noise (Gutmann and Hyvarinen 2010);
            "ranking": sampled softmax of a positive among itself and the negatives (Ma and Collins 2018).
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
    """How much the scores change under Delta, averaged over rows.

    Args:
        clean: `float[B, C]` scores s_u(e_v).
        perturbed: `float[B, C]` scores s_u(e_v + Delta).
        reading: "eq5": the sum over candidates of s log(s / s'), s the sigmoid of the score, as eq. 5 is printed. Both
            sides get a gradient: the sum is not normalised, and from the perturbed side alone it would only raise all
            scores. "row_kl": KL divergence of the row's softmax, clean (no gradient) against perturbed, as in the
            authors' public code.
    """
    if reading == "eq5":
        return (clean.sigmoid() * (F.logsigmoid(clean) - F.logsigmoid(perturbed))).sum(dim=1).mean()
    target = clean.detach().log_softmax(dim=1)
    return F.kl_div(perturbed.log_softmax(dim=1), target, reduction="batchmean", log_target=True)


def distillation_loss(light: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """KL divergence of the row's softmax, the scorer's against the light head's, averaged over rows.

    The logQ correction in both makes candidates drawn by popularity represent the whole corpus. Alternatives were
    compared in small trainings, by how many items the light walk must score for a coverage of 0.95. A softmax with a
    temperature needed more. Regression of the centred scores did not reach it: its long lists held less of the top K.
    Without the correction, lists of every length held less.

    Args:
        light: `float[B, C]`, corrected light scores.
        target: `float[B, C]`, the scorer's corrected scores; no gradient.
        valid: `bool[B, C]`, which candidates count; at least one per row.
    """
    target, light = (scores.masked_fill(~valid, EXCLUDED).log_softmax(dim=1) for scores in (target.detach(), light))
    return F.kl_div(light, target, reduction="batchmean", log_target=True)


EXCLUDED = -1e9
"""Instead of -inf, which would give 0 * inf in the divergence."""
