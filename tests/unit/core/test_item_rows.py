"""Rows of candidates: both kernels against plain Python, and the scorers that read them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nann import _kernels, kernels_numpy
from nann.item_rows import ItemRows, candidate_tensor
from nann.signature import CANDIDATE_ROWS, CANDIDATES

BOTH = pytest.mark.parametrize("kernel", [_kernels, kernels_numpy], ids=["native", "numpy"])


@BOTH
@given(
    seed=st.integers(0, 2**32 - 1),
    base=st.integers(0, 40),
    delta=st.integers(0, 5),
    width=st.integers(1, 70),
    users=st.integers(0, 4),
    candidates=st.integers(0, 700),
    threads=st.integers(1, 3),
)
def test_each_candidate_gets_its_row(kernel, seed, base, delta, width, users, candidates, threads):
    rng = np.random.default_rng(seed)
    every = rng.normal(size=(base + delta, width)).astype(np.float32)
    rows = ItemRows(every[:base].copy(), every[base:].copy())
    items = rng.integers(-1, base + delta, (users, candidates)).astype(np.int32)
    found = rows.gather(items, threads, kernel)
    assert (found.shape, found.dtype) == ((users, candidates, width), np.float32)
    for place in np.ndindex(items.shape):
        expected = np.zeros(width) if items[place] == -1 else every[items[place]]
        np.testing.assert_array_equal(found[place], expected)


@BOTH
@pytest.mark.parametrize("item", [5, -2, 2**31 - 1, -(2**31)])
def test_an_item_that_has_no_row(kernel, item):
    rows = ItemRows(np.ones((3, 2), np.float32), np.ones((2, 2), np.float32))
    with pytest.raises(IndexError, match=rf"items holds {item}; expected an item of 0 <= item < 5, or -1"):
        rows.gather(np.array([[0, item]], np.int32), kernel=kernel)


@BOTH
def test_the_kernels_refuse_rows_of_two_widths(kernel):
    with pytest.raises(ValueError, match="delta has 3 columns; expected 2, as base"):
        kernel.gather_rows(np.ones((1, 2), np.float32), np.ones((1, 3), np.float32), np.zeros((1, 1), np.int32), 1)


def test_arrays_that_are_no_rows():
    rows = np.ones((3, 2), np.float32)
    with pytest.raises(TypeError, match=r"base is float64; expected float32\[2 dimensions\]"):
        ItemRows(np.ones((3, 2)))
    with pytest.raises(ValueError, match="delta has 3 columns; expected 2, as base"):
        ItemRows(rows, np.ones((1, 3), np.float32))
    with pytest.raises(ValueError, match=r"items has shape \[2\]; expected int32\[2 dimensions\]"):
        ItemRows(rows).gather(np.zeros(2, np.int32))
    with pytest.raises(ValueError, match="threads is 0; expected at least 1"):
        ItemRows(rows).gather(np.zeros((1, 1), np.int32), 0)


def test_rows_may_be_mapped_read_only(tmp_path):
    np.save(tmp_path / "rows.npy", np.arange(6, dtype=np.float32).reshape(3, 2))
    rows = ItemRows(np.load(tmp_path / "rows.npy", mmap_mode="r"))
    np.testing.assert_array_equal(rows.gather(np.array([[2, 0]], np.int32)), [[[4, 5], [0, 1]]])


def test_what_a_scorer_reads_of_candidates():
    items = np.array([[1, -1]], np.int32)
    spec, value = candidate_tensor(items, None)
    assert spec is CANDIDATES
    assert value is items
    spec, value = candidate_tensor(np.array([[1, 2, -1]], np.int32)[:, ::2], ItemRows(np.eye(3, dtype=np.float32)))
    assert spec is CANDIDATE_ROWS
    np.testing.assert_array_equal(value, [[[0, 1, 0], [0, 0, 0]]])


def test_a_large_call_is_shared_by_threads(monkeypatch):
    monkeypatch.setattr("nann.item_rows._GATHERED_PER_THREAD", 100)
    monkeypatch.setattr("nann.threads.core_count", lambda: 3)
    asked = []
    monkeypatch.setattr(ItemRows, "gather", lambda self, items, threads: asked.append(threads))
    rows = ItemRows(np.ones((3, 5), np.float32))
    for width, shared in ((1, True), (10, True), (1000, True), (1000, False)):
        candidate_tensor(np.zeros((1, width), np.int32), rows, shared=shared)
    assert asked == [1, 2, 3, 1]
