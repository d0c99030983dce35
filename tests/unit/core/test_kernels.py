"""One contract for both implementations of the kernels, against oracles in plain Python."""

import importlib.util
import math
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nann
from nann import _kernels, kernels
from nann.kernels import NATIVE, NUMPY
from nann.signature import PADDING_SCORE

BOTH = pytest.mark.parametrize("kernel", [NATIVE, NUMPY], ids=lambda kernel: kernel.name)
FEW = settings(max_examples=150)
ITEM_COUNT = 130  # three words, the last one mostly unused


def i32(*rows):
    return np.array(rows, np.int32)


def f32(*rows):
    return np.array(rows, np.float32)


def bitmap(rows, words=3):
    bits = np.zeros((len(rows), words), np.uint64)
    for row, items in zip(bits, rows, strict=True):
        for item in items:
            row[item // 64] |= np.uint64(1 << item % 64)
    return bits


def members(bits):
    return [{64 * w + b for w, word in enumerate(row) for b in range(64) if int(word) >> b & 1} for row in bits]


def csr(lists):
    indptr = np.cumsum([0, *map(len, lists)]).astype(np.int32)
    return indptr, np.array([item for row in lists for item in row], np.int32)


def padded(rows, width=None):
    width = max(map(len, rows), default=0) if width is None else width
    return np.array([[*row, *[-1] * (width - len(row))] for row in rows], np.int32).reshape(len(rows), width)


def expand_oracle(lists, visited, frontier):
    found = []
    for seen, row in zip(visited, frontier, strict=True):
        fresh = []
        for item in row:
            for neighbor in lists[item] if item != -1 else ():
                if neighbor not in seen:
                    seen.add(neighbor)
                    fresh.append(neighbor)
        found.append(fresh)
    return padded(found)


def merge_oracle(items, scores, new_items, new_scores, ef):
    width = min(max(ef, default=0), items.shape[1] + new_items.shape[1])
    out = [np.full((len(items), width), fill, kind) for fill, kind in ((-1, "i4"), (PADDING_SCORE, "f4"), (False, "?"))]
    for b in range(len(items)):
        old = [(item, score, False) for item, score in zip(items[b], scores[b], strict=True) if item != -1]
        new = [(item, score, True) for item, score in zip(new_items[b], new_scores[b], strict=True) if item != -1]
        for place, entry in enumerate(sorted(old + new, key=lambda entry: (-entry[1], entry[0]))[: ef[b]]):
            for array, value in zip(out, entry, strict=True):
                array[b, place] = value
    return out


items = st.integers(0, ITEM_COUNT - 1)


@st.composite
def expansions(draw):
    """Neighbour lists with duplicates and isolated items, a bitmap that may be full, and a padded frontier."""
    some = draw(st.dictionaries(items, st.lists(items, max_size=12), max_size=15))
    lists = [some.get(item, []) for item in range(ITEM_COUNT)]
    # Mostly items that have neighbours, duplicates and padding among them.
    node = st.one_of(st.sampled_from(sorted(some)), items, st.just(-1)) if some else st.one_of(items, st.just(-1))
    batch, width = draw(st.integers(0, 3)), draw(st.integers(0, 10))
    frontier = [draw(st.lists(node, min_size=width, max_size=width)) for _ in range(batch)]
    seen = st.one_of(st.sets(items, max_size=20), st.just(set(range(ITEM_COUNT))))
    return lists, [draw(seen) for _ in range(batch)], frontier, width


@st.composite
def merges(draw):
    """Scored lists with -1 anywhere, many ties (signed zeros among them), infinities, and ef from 1 to beyond all."""
    batch, old_width, new_width = draw(st.integers(0, 3)), draw(st.integers(0, 8)), draw(st.integers(0, 8))
    score = st.one_of(
        st.sampled_from([0.0, -0.0, 1.0, -1.0, math.inf, -math.inf]), st.floats(width=32, allow_nan=False)
    )
    ids = [draw(st.permutations(range(20))) for _ in range(batch)]
    hide = st.lists(st.booleans(), min_size=old_width + new_width, max_size=old_width + new_width)
    all_items = [
        [-1 if gone else item for item, gone in zip(row, draw(hide), strict=False)][: old_width + new_width]
        for row in ids
    ]
    all_items = np.array(all_items, np.int32).reshape(batch, old_width + new_width)
    scores = draw(st.lists(score, min_size=all_items.size, max_size=all_items.size))
    scores = np.array(scores, np.float32).reshape(all_items.shape)
    ef = np.array(draw(st.lists(st.integers(1, 20), min_size=batch, max_size=batch)), np.int32)
    parts = [
        np.ascontiguousarray(array[:, cut])
        for cut in (slice(old_width), slice(old_width, None))
        for array in (all_items, scores)
    ]
    return *parts, ef


def assert_same(left, right):
    for one, other in zip(left, right, strict=True):
        assert one.dtype == other.dtype
        assert one.shape == other.shape
        assert one.tobytes() == other.tobytes()  # bit for bit: the sign of a zero counts


class TestMark:
    @BOTH
    def test_sets_bits_and_ignores_padding(self, kernel):
        visited = bitmap([{5}, set()])
        kernel.mark(visited, i32([0, 63, 64, 0], [-1, 191, -1, -1]))
        assert members(visited) == [{0, 5, 63, 64}, {191}]

    @BOTH
    @pytest.mark.parametrize("shape", [(0, 3), (2, 0)])
    def test_nothing_to_mark(self, kernel, shape):
        visited = bitmap([set()] * shape[0])
        kernel.mark(visited, np.empty(shape, np.int32))
        assert not visited.any()

    @BOTH
    @pytest.mark.parametrize("item", [192, -2, 2**31 - 1, -(2**31)])
    def test_an_item_out_of_range_is_refused(self, kernel, item):
        with pytest.raises(IndexError, match=rf"items holds {item}; expected an item of 0 <= item < 192, or -1"):
            kernel.mark(bitmap([set()]), i32([3, item]))


class TestExpand:
    @BOTH
    @FEW
    @given(case=expansions())
    def test_equals_the_oracle(self, kernel, case):
        lists, seen, frontier, width = case
        visited = bitmap(seen)
        found = kernel.expand(*csr(lists), visited, padded(frontier, width))
        assert_same([found], [expand_oracle(lists, seen, frontier)])
        assert members(visited) == seen

    @FEW
    @given(case=expansions(), threads=st.integers(1, 3))
    def test_native_equals_numpy(self, case, threads):
        lists, seen, frontier, width = case
        bitmaps = [bitmap(seen), bitmap(seen)]
        found = [
            kernel.expand(*csr(lists), visited, padded(frontier, width), threads)
            for kernel, visited in zip((NATIVE, NUMPY), bitmaps, strict=True)
        ]
        assert_same([found[0], bitmaps[0]], [found[1], bitmaps[1]])

    @BOTH
    def test_order_of_first_discovery_per_row(self, kernel):
        layer = csr([[3, 2, 3], [2, 4, 0], [], [], [1]])
        visited = bitmap([{0}, {1}, set()], words=1)
        found = kernel.expand(*layer, visited, i32([1, -1, 0], [0, 0, 4], [2, 3, -1]))
        np.testing.assert_array_equal(found, i32([2, 4, 3], [3, 2, -1], [-1, -1, -1]))
        assert members(visited) == [{0, 2, 3, 4}, {1, 2, 3}, set()]

    @BOTH
    def test_no_columns_when_nothing_is_left(self, kernel):
        full = bitmap([set(range(3))], words=1)
        assert kernel.expand(*csr([[1], [2], [0]]), full, i32([0, 1, 2])).shape == (1, 0)

    @BOTH
    def test_reads_read_only_memory_maps(self, kernel, tmp_path):
        for name, array in zip(("indptr", "neighbors"), csr([[1], [0]]), strict=True):
            np.save(tmp_path / f"{name}.npy", array)
        layer = [np.load(tmp_path / f"{name}.npy", mmap_mode="r") for name in ("indptr", "neighbors")]
        np.testing.assert_array_equal(kernel.expand(*layer, bitmap([set()], words=1), i32([0])), i32([1]))

    @BOTH
    @pytest.mark.parametrize("item", [3, -2, 2**31 - 1])
    def test_a_frontier_item_out_of_range_is_refused(self, kernel, item):
        with pytest.raises(IndexError, match=rf"frontier holds {item}; expected an item of 0 <= item < 3, or -1"):
            kernel.expand(*csr([[1], [2], [0]]), bitmap([set()]), i32([0, item]))

    @BOTH
    @pytest.mark.parametrize("neighbor", [3, -1, 2**31 - 1])
    def test_a_neighbor_out_of_range_is_refused(self, kernel, neighbor):
        with pytest.raises(IndexError, match=rf"neighbors holds {neighbor}; expected an item of 0 <= item < 3"):
            kernel.expand(*csr([[1], [neighbor], [0]]), bitmap([set()]), i32([1]))

    @BOTH
    @pytest.mark.parametrize("indptr", [[0, 5, 3], [0, -1, 3], [0, 2, 9], [-3, 2, 3]])
    def test_an_indptr_out_of_range_is_refused(self, kernel, indptr):
        with pytest.raises(IndexError, match=r"indptr of item [01] is -?\d:-?\d; expected a range within 0:3"):
            kernel.expand(i32(*indptr), i32(0, 1, 1), bitmap([set()]), i32([0, 1]))

    @BOTH
    def test_a_bitmap_that_is_too_small_is_refused(self, kernel):
        with pytest.raises(ValueError, match="visited has 2 words per row; expected at least 3 for 130 items"):
            kernel.expand(*csr([[]] * 130), bitmap([set()], words=2), i32([0]))

    @BOTH
    def test_an_empty_indptr_is_refused(self, kernel):
        with pytest.raises(ValueError, match="indptr is empty; expected one value more than items"):
            kernel.expand(i32(), i32(), bitmap([set()]), i32([-1]))


class TestMergeTop:
    @BOTH
    @FEW
    @given(case=merges())
    def test_equals_the_oracle(self, kernel, case):
        assert_same(kernel.merge_top(*case), merge_oracle(*case))

    @FEW
    @given(case=merges(), threads=st.integers(1, 3))
    def test_native_equals_numpy(self, case, threads):
        assert_same(NATIVE.merge_top(*case, threads), NUMPY.merge_top(*case))

    @BOTH
    def test_ties_go_to_the_smaller_item_and_rows_keep_their_own_ef(self, kernel):
        top = kernel.merge_top(
            i32([7, 2, -1], [5, -1, -1]),
            f32([1.0, 0.5, 9.0], [0.0, 0.0, 0.0]),
            i32([3, 9], [4, -1]),
            f32([1.0, 0.5], [-0.0, 2.0]),
            i32(3, 1),
        )
        np.testing.assert_array_equal(top[0], i32([3, 7, 2], [4, -1, -1]))
        np.testing.assert_array_equal(top[1], f32([1.0, 1.0, 0.5], [0.0, PADDING_SCORE, PADDING_SCORE]))
        np.testing.assert_array_equal(top[2], [[True, False, False], [True, False, False]])

    @BOTH
    def test_large_merge_equals_a_full_sort(self, kernel):
        rng = np.random.default_rng(0)
        ids = np.stack([rng.permutation(20_000).astype(np.int32) for _ in range(3)])
        scores = rng.integers(0, 500, ids.shape).astype(np.float32)
        top, top_scores, is_new = kernel.merge_top(
            *(np.ascontiguousarray(array[:, cut]) for cut in (slice(400), slice(400, None)) for array in (ids, scores)),
            i32(400, 1000, 30),
        )
        for b, ef in enumerate((400, 1000, 30)):
            order = np.lexsort((ids[b], -scores[b]))[:ef]
            np.testing.assert_array_equal(top[b, :ef], ids[b, order])
            np.testing.assert_array_equal(top_scores[b, :ef], scores[b, order])
            np.testing.assert_array_equal(is_new[b, :ef], order >= 400)
            assert (top[b, ef:] == -1).all()

    @BOTH
    def test_an_ef_below_one_is_refused(self, kernel):
        with pytest.raises(ValueError, match="ef holds 0; expected at least 1"):
            kernel.merge_top(i32([1]), f32([1]), i32([2]), f32([2]), i32(0))

    @BOTH
    def test_an_item_below_minus_one_is_refused(self, kernel):
        with pytest.raises(IndexError, match="new_items holds -7; expected an item, or -1"):
            kernel.merge_top(i32([1]), f32([1]), i32([-7]), f32([2]), i32(1))

    @BOTH
    def test_a_score_that_is_nan_is_refused_unless_it_is_padding(self, kernel):
        kernel.merge_top(i32([-1]), f32([np.nan]), i32([2]), f32([2]), i32(1))
        with pytest.raises(ValueError, match="the score of item 2 is NaN; expected a number"):
            kernel.merge_top(i32([1]), f32([1]), i32([2]), f32([np.nan]), i32(1))

    @BOTH
    def test_scores_of_another_shape_are_refused(self, kernel):
        with pytest.raises(
            ValueError, match=r"new_items has shape \[1, 2\] and new_scores \[1, 1\]; expected one score"
        ):
            kernel.merge_top(i32([1]), f32([1]), i32([2, 3]), f32([2]), i32(1))


@BOTH
class TestArraysThatDoNotFit:
    def test_not_an_array(self, kernel):
        with pytest.raises(TypeError, match=r"items is a list; expected a NumPy array int32\[2 dimensions\]"):
            kernel.mark(bitmap([set()]), [[1]])

    def test_dtype(self, kernel):
        with pytest.raises(TypeError, match=r"items is int64; expected int32\[2 dimensions\]"):
            kernel.mark(bitmap([set()]), np.array([[1]]))

    def test_rank(self, kernel):
        with pytest.raises(ValueError, match=r"items has shape \[1\]; expected int32\[2 dimensions\]"):
            kernel.mark(bitmap([set()]), i32(1))

    def test_contiguity(self, kernel):
        with pytest.raises(TypeError, match=r"items is not C-contiguous; pass np.ascontiguousarray\(items\)"):
            kernel.mark(bitmap([set(), set()]), np.asfortranarray(i32([1, 2], [3, 4])))

    def test_read_only_bitmap(self, kernel):
        visited = bitmap([set()])
        visited.flags.writeable = False
        with pytest.raises(TypeError, match="visited is read-only; expected an array that can be changed in place"):
            kernel.mark(visited, i32([1]))

    def test_row_counts(self, kernel):
        with pytest.raises(ValueError, match="frontier has 2 rows; expected 1, one per user"):
            kernel.expand(*csr([[]]), bitmap([set()]), i32([0], [0]))
        with pytest.raises(ValueError, match="ef has 2 rows; expected 1, one per user"):
            kernel.merge_top(i32([1]), f32([1]), i32([2]), f32([2]), i32(1, 1))

    def test_threads(self, kernel):
        with pytest.raises(ValueError, match="threads is 0; expected at least 1"):
            kernel.expand(*csr([[]]), bitmap([set()]), i32([0]), 0)
        with pytest.raises(ValueError, match="threads is -1; expected at least 1"):
            kernel.merge_top(i32([1]), f32([1]), i32([2]), f32([2]), i32(1), -1)


class TestNativeModuleAlone:
    """Called without the checks of `Kernels`, it must refuse what does not fit and stay within its arrays."""

    def test_other_dtypes_are_not_converted(self):
        with pytest.raises(TypeError, match="incompatible function arguments"):
            _kernels.mark(bitmap([set()]), np.array([[1]]))

    def test_row_counts(self):
        with pytest.raises(ValueError, match="items has 2 rows; expected 1, one per user"):
            _kernels.mark(bitmap([set()]), i32([1], [2]))
        with pytest.raises(ValueError, match="frontier has 2 rows; expected 1, one per user"):
            _kernels.expand(*csr([[]]), bitmap([set()]), i32([0], [0]), 1)
        with pytest.raises(ValueError, match="new_items has 2 rows; expected 1, one per user"):
            _kernels.merge_top(i32([1]), f32([1]), i32([2], [3]), f32([2], [3]), i32(1), 1)
        with pytest.raises(ValueError, match="ef has 2 rows; expected 1, one per user"):
            _kernels.merge_top(i32([1]), f32([1]), i32([2]), f32([2]), i32(1, 1), 1)

    def test_shapes_of_scores(self):
        with pytest.raises(ValueError, match="items and scores differ in shape; expected one score per item"):
            _kernels.merge_top(i32([1]), f32([1]), i32([2, 3]), f32([2]), i32(1), 1)

    def test_empty_indptr(self):
        with pytest.raises(ValueError, match="indptr is empty; expected one value more than items"):
            _kernels.expand(i32(), i32(), bitmap([set()]), i32([0]), 1)


def test_a_missing_native_kernel_says_what_to_do(monkeypatch):
    monkeypatch.setitem(sys.modules, "nann._kernels", None)
    monkeypatch.delattr(nann, "_kernels")
    spec = importlib.util.spec_from_file_location("kernels_without_native", kernels.__file__)
    with pytest.raises(ImportError, match=r"nann\._kernels, the native kernel, is missing .* run `pip install \.`"):
        spec.loader.exec_module(importlib.util.module_from_spec(spec))
