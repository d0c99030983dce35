from __future__ import annotations

import numpy as np
import pytest
import torch

from nann.training.losses import auxiliary_loss, corrected_logits, distillation_loss, fgsm_perturbation, nce_loss


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def softmax(x):
    e = np.exp(x - x.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def one_positive(rows):
    return torch.ones(rows, 1, dtype=torch.bool)


@pytest.fixture
def logits():
    return torch.randn(5, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def test_logq_correction_subtracts_the_log_expected_count_and_drops_hits(logits):
    log_expected = torch.linspace(-3, 1, 7, dtype=torch.float64)[None]
    hits = torch.zeros(5, 6, dtype=torch.bool)
    hits[2, 4] = True
    corrected = corrected_logits(logits, log_expected, hits).numpy()
    expected = logits.numpy() - log_expected.numpy()
    expected[2, 5] = -np.inf
    np.testing.assert_allclose(corrected, expected)


def test_binary_nce_is_logistic_regression_against_noise(logits):
    plain = -np.log(sigmoid(logits.numpy()[:, 0])) - np.log(1 - sigmoid(logits.numpy()[:, 1:])).sum(axis=1)
    assert nce_loss(logits, one_positive(5), "binary").item() == pytest.approx(plain.mean())


def test_ranking_nce_is_cross_entropy_of_the_positive(logits):
    plain = -np.log(softmax(logits.numpy())[:, 0])
    assert nce_loss(logits, one_positive(5), "ranking").item() == pytest.approx(plain.mean())


@pytest.mark.parametrize("kind", ["binary", "ranking"])
def test_a_dropped_hit_contributes_nothing(logits, kind):
    hits = torch.zeros(5, 6, dtype=torch.bool)
    hits[:, -1] = True
    zero = torch.zeros(1, 7, dtype=torch.float64)
    with_hit = nce_loss(corrected_logits(logits, zero, hits), one_positive(5), kind)
    assert with_hit.item() == pytest.approx(nce_loss(logits[:, :-1], one_positive(5), kind).item())


@pytest.mark.parametrize("kind", ["binary", "ranking"])
def test_several_positives_are_as_many_rows_with_the_same_negatives(logits, kind):
    is_positive = torch.tensor([[True, True, False], [True, False, False], [True, True, True], [True] * 3, [True] * 3])
    rows = [
        torch.cat([logits[row, place : place + 1], logits[row, 3:]])
        for row, place in torch.nonzero(is_positive).tolist()
    ]
    expected = nce_loss(torch.stack(rows), one_positive(len(rows)), kind)
    assert nce_loss(logits, is_positive, kind).item() == pytest.approx(expected.item())


def test_nce_with_logq_finds_the_log_conditional_probability():
    """Minimising over free scores must recover log p(v | u) up to a constant, whatever the noise."""
    p = np.array([0.5, 0.3, 0.15, 0.05])
    q = np.array([0.1, 0.2, 0.3, 0.4])
    rng = np.random.default_rng(0)
    positives = rng.choice(4, size=40_000, p=p)
    candidates = torch.from_numpy(np.concatenate([positives[:, None], rng.choice(4, size=(40_000, 8), p=q)], axis=1))
    scores = torch.zeros(4, requires_grad=True)
    optimizer = torch.optim.LBFGS([scores], max_iter=50)
    log_expected = torch.from_numpy(np.log(8 * q)).float()
    none = torch.zeros(40_000, 8, dtype=torch.bool)

    def closure():
        optimizer.zero_grad()
        loss = nce_loss(
            corrected_logits(scores[candidates], log_expected[candidates], none), one_positive(40_000), "binary"
        )
        loss.backward()
        return loss

    optimizer.step(closure)
    np.testing.assert_allclose(torch.softmax(scores, 0).detach().numpy(), p, atol=0.02)


def test_fgsm_is_the_sign_of_the_numeric_gradient():
    generator = torch.Generator().manual_seed(1)
    vectors = torch.randn(3, 4, 5, dtype=torch.float64, generator=generator, requires_grad=True)
    weight = torch.randn(5, dtype=torch.float64, generator=generator)

    def objective(v):
        return torch.tanh(v @ weight).sum() + (v**2).sum(-1).cos().sum()

    delta = fgsm_perturbation(objective(vectors), vectors, 0.01)
    numeric = torch.zeros_like(vectors)
    h = 1e-6
    for index in np.ndindex(3, 4, 5):
        up, down = vectors.detach().clone(), vectors.detach().clone()
        up[index] += h
        down[index] -= h
        numeric[index] = (objective(up) - objective(down)) / (2 * h)
    torch.testing.assert_close(delta, 0.01 * numeric.detach().sign())
    assert not delta.requires_grad


def test_eq5_is_the_printed_sum():
    clean, perturbed = torch.randn(2, 4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    s, t = sigmoid(clean.numpy()), sigmoid(perturbed.numpy())
    assert auxiliary_loss(clean, perturbed, "eq5").item() == pytest.approx((s * np.log(s / t)).sum(axis=1).mean())


def test_row_kl_is_the_divergence_of_the_rows():
    clean, perturbed = torch.randn(2, 4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    p, q = softmax(clean.numpy()), softmax(perturbed.numpy())
    assert auxiliary_loss(clean, perturbed, "row_kl").item() == pytest.approx((p * np.log(p / q)).sum(axis=1).mean())


@pytest.mark.parametrize(("reading", "through_clean"), [("eq5", True), ("row_kl", False)])
def test_through_which_side_the_gradient_goes(reading, through_clean):
    clean = torch.randn(4, 6, requires_grad=True)
    perturbed = torch.randn(4, 6, requires_grad=True)
    auxiliary_loss(clean, perturbed, reading).backward()
    assert (clean.grad is not None) == through_clean
    assert perturbed.grad.abs().sum() > 0


@pytest.mark.parametrize("reading", ["eq5", "row_kl"])
def test_no_movement_costs_nothing(reading):
    scores = torch.randn(4, 6)
    assert auxiliary_loss(scores, scores, reading).item() == pytest.approx(0, abs=1e-6)


def test_distillation_is_the_divergence_of_the_rows_over_valid_candidates():
    light, target = torch.randn(2, 4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    valid = torch.ones(4, 6, dtype=torch.bool)
    valid[1, 2:] = False
    valid[3, 0] = False
    target[3, 0] = -torch.inf  # what the logQ correction makes of a negative that hits a positive
    expected = []
    for row, scores, kept in zip(light.numpy(), target.numpy(), valid.numpy(), strict=True):
        p, q = softmax(scores[kept][None]), softmax(row[kept][None])
        expected.append((p * np.log(p / q)).sum())
    assert distillation_loss(light, target, valid).item() == pytest.approx(np.mean(expected))


def test_distillation_teaches_the_light_side_alone():
    light, target = torch.randn(4, 6, requires_grad=True), torch.randn(4, 6, requires_grad=True)
    valid = torch.ones(4, 6, dtype=torch.bool)
    valid[:, 5] = False
    distillation_loss(light, target, valid).backward()
    assert target.grad is None
    assert light.grad[:, :5].abs().sum() > 0
    assert light.grad[:, 5].abs().sum() == 0
    shifted = target.detach() + torch.arange(4.0)[:, None]  # a softmax does not change if a whole row is shifted
    assert distillation_loss(target.detach(), shifted, valid).item() == pytest.approx(0, abs=1e-6)
