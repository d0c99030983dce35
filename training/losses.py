"""L_all = L_NCE + L_AUX (paper, eq. 3): noise-contrastive estimation and the adversarial auxiliary loss."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor


def corrected_logits(logits: Tensor, log_expected_count: Tensor, is_positive_item: Tensor) -> Tensor:
    """Scores minus log(expected count) (logQ), with negatives that hit the positive item taken out.

    Args:
        logits: `float[B, 1 + C]`, the positive first.
        log_expected_count: `float[B or 1, 1 + C]`, log(number of negatives * unigram probability) of each candidate.
        is_positive_item: `bool[B, C]`, negatives that are the row's positive item.
    """
    corrected = logits - log_expected_count
    negatives = corrected[:, 1:].masked_fill(is_positive_item, float("-inf"))
    return torch.cat([corrected[:, :1], negatives], dim=1)


def nce_loss(corrected: Tensor, kind: str) -> Tensor:
    """L_NCE, mean over rows.

    Args:
        corrected: `float[B, 1 + C]` from `corrected_logits`.
        kind: "binary": logistic regression of each candidate, positive against noise (Gutmann and Hyvarinen 2010);
            "ranking": cross-entropy of the positive among the row (Ma and Collins 2018; sampled softmax).
    """
    if kind == "ranking":
        return -F.log_softmax(corrected, dim=1)[:, 0].mean()
    return -(F.logsigmoid(corrected[:, 0]) + F.logsigmoid(-corrected[:, 1:]).sum(dim=1)).mean()


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
