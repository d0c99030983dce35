"""How well scores agree, whatever their scale and however many are masked."""

from __future__ import annotations

import numpy as np
import pytest

from nann.score_agreement import Agreement, typical_score

MASKS = [-np.inf, -1e30, -1e9, -65504.0]
SCALES = [1e-6, 1.0, 1e3, 1e6]


def scores(users=4, candidates=200, scale=1.0):
    return (scale * np.random.default_rng(0).normal(size=(users, candidates))).astype(np.float32)


def rounded(expected):
    """What another order of float32 sums gives: a relative error of a few units in the last place."""
    noise = 3e-7 * np.random.default_rng(1).normal(size=expected.shape) * np.nanmedian(np.abs(expected))
    return (expected + noise).astype(np.float32)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("masked", [0.0, 0.01, 0.5, 0.9])
@pytest.mark.parametrize("mask", MASKS)
def test_neither_scale_nor_masks_fool_it(scale, masked, mask):
    expected = scores(scale=scale)
    got = rounded(expected)
    hidden = np.random.default_rng(2).random(expected.shape) < masked
    hidden[0, 0] = True  # one masked item, the least
    low = np.float32(min(mask, mask * scale))
    expected[hidden] = got[hidden] = low
    assert Agreement.of(got, expected).holds()
    for wrong in (-expected, got * 1.001, np.where(hidden, low, got[:, ::-1]), np.where(hidden, 0, got)):
        assert not Agreement.of(wrong.astype(np.float32), expected).holds(), wrong
    softmax = np.exp(np.where(hidden, -np.inf, got / scale))
    softmax = (softmax / softmax.sum(axis=1, keepdims=True)).astype(np.float32)
    assert not Agreement.of(softmax, expected).holds()


def test_one_score_is_judged_by_a_typical_one():
    typical = typical_score(scores(scale=1000))
    nearly = np.float32([[1e-3]]), np.float32([[2e-3]])  # sums of large numbers that cancel
    assert Agreement.of(*nearly, typical).holds()
    assert not Agreement.of(*nearly).holds()
    large = np.float32([[5000.0]])
    assert Agreement.of(large + np.float32(1e-2), large, typical).holds()
    assert not Agreement.of(large + 5, large, typical).holds()


def test_a_large_constant_does_not_hide_another_order():
    expected = 1e5 + scores()
    assert Agreement.of(rounded(expected), expected).holds()
    other = 1e5 + scores()[:, ::-1]
    agreement = Agreement.of(other, expected)
    assert agreement.error < 1e-4
    assert agreement.order == pytest.approx(0.5, abs=0.1)
    assert not agreement.holds()


def test_equal_scores_and_zeros_agree():
    for same in (np.zeros((2, 5), np.float32), np.full((2, 5), 7.0, np.float32), np.full((1, 3), -np.inf, np.float32)):
        assert Agreement.of(same, same) == Agreement(0.0, 1.0)
    assert not Agreement.of(np.full((1, 2), 1e-9, np.float32), np.zeros((1, 2), np.float32)).holds()


def test_nan_never_agrees():
    expected = scores()
    broken = expected.copy()
    broken[1, 3] = np.nan
    assert not Agreement.of(broken, expected).holds()
    assert not Agreement.of(expected, broken).holds()


def test_the_typical_score_is_neither_masked_nor_zero():
    one = scores()
    mixed = np.concatenate([one, np.zeros_like(one), np.full_like(one, -1e9), np.full_like(one, -np.inf)], axis=1)
    assert typical_score(mixed) == pytest.approx(typical_score(one), rel=0.02) == pytest.approx(0.67, rel=0.1)
    assert typical_score(np.zeros((2, 3), np.float32)) == 0
