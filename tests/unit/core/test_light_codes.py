"""Light vectors in eight bits against the vectors themselves."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nann.light_codes import LightCodes

WIDTHS = st.integers(1, 70)


@given(width=WIDTHS, seed=st.integers(0, 1000))
def test_no_number_is_off_by_more_than_half_a_step(width, seed):
    rng = np.random.default_rng(seed)
    columns = 10.0 ** rng.integers(-3, 4, width)  # of very different sizes, as a column of biases has
    vectors = (rng.standard_normal((50, width)) * columns).astype(np.float32)
    vectors[:, rng.integers(width)] = 0
    made = LightCodes.of(vectors)
    assert made.codes.shape == (50, -(-width // 16) * 16)
    columns = len(made.scales)
    assert columns == (2 * width if width <= 8 else width)
    assert (made.codes[:, columns:] == 0).all()
    back = (made.codes[:, :columns] * made.scales.astype(np.float64)).reshape(50, -1, width).sum(axis=1)
    assert (np.abs(back - vectors) <= 0.51 * made.scales[-width:]).all()


@given(width=WIDTHS, seed=st.integers(0, 1000))
def test_products_come_near_the_light_scores(width, seed):
    rng = np.random.default_rng(seed)
    vectors, users = (rng.standard_normal((rows, width)).astype(np.float32) for rows in (200, 3))
    made = LightCodes.of(vectors)
    codes, steps = made.of_users(users)
    products = codes.astype(np.int64) @ made.codes.T.astype(np.int64)
    assert np.abs(products).max() <= np.iinfo(np.int32).max
    bound = np.abs(users) @ (0.51 * made.scales[-width:]) + 0.51 * steps * 127 * len(made.scales)  # of both roundings
    assert (np.abs(products * steps[:, None] - users @ vectors.T) <= bound[:, None] + 1e-5).all()


@pytest.mark.parametrize("width", [16, 4096, 40_000])
def test_the_largest_sums_fit_32_bits(width):
    vectors, users = np.ones((1, width), np.float32), np.full((1, width), 3, np.float32)
    made = LightCodes.of(vectors)
    codes, steps = made.of_users(users)
    product = int(codes[0].astype(np.int64) @ made.codes[0].astype(np.int64))
    assert product <= np.iinfo(np.int32).max
    assert product * steps[0] == pytest.approx(3 * width, rel=0.2)


def test_a_user_and_a_corpus_of_zeros_have_codes():
    made = LightCodes.of(np.zeros((3, 5), np.float32))
    codes, steps = made.of_users(np.zeros((2, 5), np.float32))
    assert not made.codes.any()
    assert not codes.any()
    assert np.isfinite(steps).all()


def test_a_popularity_alone_keeps_its_order():
    popularity = np.random.default_rng(0).permutation(20_000).astype(np.float32)[:, None]
    made = LightCodes.of(popularity)
    codes, _ = made.of_users(np.ones((1, 1), np.float32))
    products = made.codes.astype(np.int64) @ codes[0].astype(np.int64)
    assert set(np.argsort(-products)[:100]) == set(np.argsort(-popularity[:, 0])[:100])
