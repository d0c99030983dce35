"""Bitmaps of items against Python sets."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nann import item_sets
from nann.kernels import NATIVE, NUMPY


@st.composite
def corpora(draw):
    """N from 0 to beyond two words, and some of the N items, duplicates and padding among them."""
    item_count = draw(st.sampled_from([0, 1, 63, 64, 65, 128, 130]))
    one = st.integers(-1, item_count - 1)
    return item_count, draw(st.lists(one, max_size=40))


@given(case=corpora())
def test_equal_python_sets(case):
    item_count, items = case
    bits = item_sets.of_items(np.array(items, np.int32), item_count)
    expected = {item for item in items if item != -1}
    assert bits.dtype == np.uint64
    assert bits.shape == (item_sets.bitmap_words(item_count),)
    assert {item for item in range(item_count) if int(bits[item // 64]) >> item % 64 & 1} == expected
    assert item_sets.members(bits).tolist() == sorted(expected)
    assert item_sets.members(bits).dtype == np.int32
    assert item_sets.count(bits) == len(expected)
    others = item_sets.invert(bits, item_count)
    assert item_sets.members(others).tolist() == sorted(set(range(item_count)) - expected)
    np.testing.assert_array_equal(item_sets.invert(others, item_count), bits)


@pytest.mark.parametrize("item_count", [0, 1, 64, 100])
def test_everything_and_nothing(item_count):
    assert item_sets.members(item_sets.everything(item_count)).tolist() == list(range(item_count))
    assert item_sets.count(item_sets.none(item_count)) == 0


def test_several_sets_are_inverted_at_once():
    both = np.stack([item_sets.none(70), item_sets.everything(70)])
    np.testing.assert_array_equal(item_sets.invert(both, 70), both[::-1])


@pytest.mark.parametrize("item", [70, -2, 127])
def test_an_item_of_another_corpus_is_refused(item):
    with pytest.raises(IndexError, match=rf"items holds {item}; expected an item of 0 <= item < 70, or -1"):
        item_sets.of_items(np.array([3, item], np.int32), 70)


@pytest.mark.parametrize("kernel", [NATIVE, NUMPY], ids=lambda kernel: kernel.name)
class TestCount:
    @pytest.mark.parametrize("shape", [(3, 5), (0, 3), (2, 0)])
    def test_counts_the_bits_of_each_row(self, kernel, shape):
        sets = np.random.default_rng(0).integers(0, 2**64, shape, np.uint64)
        counts = kernel.count(sets)
        assert counts.dtype == np.int64
        assert counts.tolist() == [sum(int(word).bit_count() for word in row) for row in sets]

    def test_other_arrays_are_refused(self, kernel):
        with pytest.raises(TypeError, match=r"item_sets is int64; expected uint64\[2 dimensions\]"):
            kernel.count(np.zeros((1, 3), np.int64))
