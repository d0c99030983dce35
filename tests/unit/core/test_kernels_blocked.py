"""The kernels with blocked items: both implementations against oracles in plain Python."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nann import _kernels, item_sets
from nann.kernels import NATIVE, NUMPY

BOTH = pytest.mark.parametrize("kernel", [NATIVE, NUMPY], ids=lambda kernel: kernel.name)
FEW = settings(max_examples=100)


def bitmap(rows, item_count):
    return np.stack([item_sets.of_items(np.array(sorted(row), np.int32), item_count) for row in rows])


@st.composite
def cases(draw):
    """Neighbour lists with duplicates, users with visited and blocked items, a padded frontier."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    item_count, users = draw(st.integers(1, 150)), draw(st.integers(1, 4))
    lists = [rng.integers(0, item_count, rng.integers(0, 7)).tolist() for _ in range(item_count)]

    def some(share):
        return [set(np.flatnonzero(rng.random(item_count) < share).tolist()) for _ in range(users)]

    visited, blocked = some(draw(st.sampled_from([0, 0.2, 0.9]))), some(draw(st.sampled_from([0, 0.2, 0.9, 1])))
    frontier = rng.integers(-1, item_count, (users, draw(st.integers(0, 8)))).astype(np.int32)
    return lists, visited, blocked, frontier, draw(st.integers(0, 4))


def csr(lists):
    return np.cumsum([0, *map(len, lists)]).astype(np.int32), np.array([i for row in lists for i in row], np.int32)


def expand_oracle(lists, visited, blocked, frontier, reach):
    """What is found; `visited` changes."""
    found, bridges = [], []
    nodes = [item for item in frontier.tolist() if item != -1]
    for item in (neighbor for node in nodes for neighbor in lists[node]):
        if item not in visited:
            visited.add(item)
            (bridges if item in blocked else found).append(item)
    most = reach * len(nodes)
    for bridge in bridges[:most]:
        if len(found) >= most:
            break
        for item in lists[bridge]:
            if item not in visited and item not in blocked:
                visited.add(item)
                found.append(item)
    return found


@BOTH
@FEW
@given(case=cases(), threads=st.integers(1, 3))
def test_expansion_through_blocked_items(kernel, case, threads):
    lists, visited, blocked, frontier, reach = case
    bits = bitmap(visited, len(lists))
    found = kernel.expand_through(*csr(lists), bits, bitmap(blocked, len(lists)), frontier, reach, threads)
    expected = [expand_oracle(lists, *row, reach) for row in zip(visited, blocked, frontier, strict=True)]
    assert found.shape[1] == max(map(len, expected))
    assert [row[row != -1].tolist() for row in found] == expected
    np.testing.assert_array_equal(bits, bitmap(visited, len(lists)))


@BOTH
@FEW
@given(case=cases())
def test_expansion_without_blocked_items_is_the_plain_one(kernel, case):
    lists, visited, _, frontier, reach = case
    bits, plain = bitmap(visited, len(lists)), bitmap(visited, len(lists))
    found = kernel.expand_through(*csr(lists), bits, np.zeros_like(bits), frontier, reach)
    np.testing.assert_array_equal(found, kernel.expand(*csr(lists), plain, frontier))
    np.testing.assert_array_equal(bits, plain)


@st.composite
def scans(draw):
    """Codes of small numbers, so that many products tie, and of the largest; counts from below 1 to beyond N."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    item_count, users, width = draw(st.integers(1, 9000)), draw(st.integers(0, 4)), draw(st.sampled_from([16, 32, 80]))
    most, most_of_users = draw(st.sampled_from([(2, 2), (127, 32767)]))
    codes = rng.integers(-most, most + 1, (item_count, width)).astype(np.int8)
    states = rng.integers(-most_of_users, most_of_users + 1, (users, width)).astype(np.int16)
    share = draw(st.sampled_from([0, 0.5, 0.99, 1]))
    blocked = rng.random((users, item_count)) < share
    bits = np.array([item_sets.of_items(np.flatnonzero(row).astype(np.int32), item_count) for row in blocked])
    bits = bits.reshape(users, item_sets.bitmap_words(item_count)).astype(np.uint64)
    return codes, states, bits, blocked, rng.integers(-1, 40, users).astype(np.int32)


@BOTH
@FEW
@given(case=scans(), threads=st.integers(1, 3))
def test_light_scan(kernel, case, threads):
    codes, states, bits, blocked, counts = case
    items, products = kernel.light_scan(codes, states, bits, counts, threads)
    assert items.shape == products.shape == (len(states), max(0, counts.max(initial=0)))
    for row, state in enumerate(states):
        exact = codes.astype(np.int64) @ state.astype(np.int64)
        allowed = np.flatnonzero(~blocked[row])
        best = allowed[np.lexsort((allowed, -exact[allowed]))][: max(0, counts[row])]
        np.testing.assert_array_equal(items[row], np.pad(best, (0, items.shape[1] - len(best)), constant_values=-1))
        np.testing.assert_array_equal(products[row, : len(best)], exact[best])
        assert (products[row, len(best) :] == np.iinfo(np.int32).min).all()


@st.composite
def walks(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    item_count, users = draw(st.integers(1, 120)), draw(st.integers(1, 3))
    lists = [rng.integers(0, item_count, rng.integers(0, 7)).tolist() for _ in range(item_count)]
    vectors, states = (rng.normal(size=(rows, 5)).astype(np.float32) for rows in (item_count, users))
    share = draw(st.sampled_from([0, 0.5, 0.95]))
    blocked = [set(np.flatnonzero(rng.random(item_count) < share).tolist()) for _ in range(users)]
    numbers = [rng.integers(1, most, users).astype(np.int32) for most in (20, 150)]  # ef and steps
    return lists, vectors, states, blocked, draw(st.integers(0, 20)), *numbers


@FEW
@given(case=walks(), threads=st.integers(1, 3))
def test_light_walk_native_equals_numpy(case, threads):
    lists, vectors, states, blocked, width, ef, steps = case
    arrays = (*csr(lists), np.array([0], np.int32), vectors, states, width, ef, steps, bitmap(blocked, len(lists)))
    native, numpy = (kernel.light_walk(*arrays, threads) for kernel in (NATIVE, NUMPY))
    for one, other in zip(native, numpy, strict=True):
        assert one.tobytes() == other.tobytes()
    for row, items in zip(blocked, native[0], strict=True):
        assert not row & set(items.tolist())


@BOTH
def test_a_light_walk_goes_through_blocked_items_and_gives_up_when_its_steps_end(kernel):
    line = [[max(item - 1, 0), min(item + 1, 9)] for item in range(10)]  # item 9 is the best, all but 8 are blocked
    vectors, blocked = np.arange(10, dtype=np.float32)[:, None], bitmap([set(range(10)) - {8}], 10)
    entry, user, one = np.array([0], np.int32), np.ones((1, 1), np.float32), np.array([1], np.int32)

    def walk(steps):
        return kernel.light_walk(*csr(line), entry, vectors, user, 1, one, np.array([steps], np.int32), blocked)

    assert [part.tolist() for part in walk(10)] == [[[8]], [[8.0]], [10]]
    assert walk(8)[0].tolist() == [[-1]]


def arguments(**changed):
    """Valid arguments of expand_through: two items on a line, one user."""
    values = {
        "indptr": np.array([0, 1, 2], np.int32),
        "neighbors": np.array([1, 0], np.int32),
        "visited": np.zeros((1, 1), np.uint64),
        "blocked": np.zeros((1, 1), np.uint64),
        "frontier": np.array([[0]], np.int32),
        "reach": 1,
        "threads": 1,
    }
    return {**values, **changed}


@BOTH
@pytest.mark.parametrize(("changed", "error", "message"), [
    ({"blocked": np.zeros((2, 1), np.uint64)}, ValueError, "blocked has 2 rows; expected 1, one per user"),
    ({"blocked": np.zeros((1, 1), np.int64)}, TypeError, "blocked is int64; expected uint64"),
    ({"blocked": np.zeros((1, 0), np.uint64)}, ValueError,
     "blocked has 0 words per row; expected at least 1 for 2 items"),
    ({"reach": -1}, ValueError, "reach is -1; expected at least 0"),
    ({"frontier": np.array([[2]], np.int32)}, IndexError, "frontier holds 2"),
    ({"neighbors": np.array([7, 0], np.int32)}, IndexError, "neighbors holds 7"),
])  # fmt: skip
def test_arrays_that_do_not_fit(kernel, changed, error, message):
    kernel.expand_through(**arguments())
    with pytest.raises(error, match=message):
        kernel.expand_through(**arguments(**changed))


@BOTH
@pytest.mark.parametrize(("changed", "error", "message"), [
    ({"users": np.ones((1, 32), np.int16)}, ValueError, "users has 32 columns; expected 16, as codes"),
    ({"codes": np.ones((2, 3), np.int8)}, ValueError, "codes has 3 columns; expected a multiple of 16"),
    ({"blocked": np.zeros((2, 1), np.uint64)}, ValueError, "blocked has 2 rows; expected 1, one per user"),
    ({"blocked": np.zeros((1, 0), np.uint64)}, ValueError,
     "blocked has 0 words per row; expected at least 1 for 2 items"),
    ({"counts": np.array([1, 1], np.int32)}, ValueError, "counts has 2 rows; expected 1, one per user"),
    ({"codes": np.ones((2, 16), np.int16)}, TypeError, "codes is int16; expected int8"),
    ({"threads": 0}, ValueError, "threads is 0; expected at least 1"),
])  # fmt: skip
def test_scans_of_arrays_that_do_not_fit(kernel, changed, error, message):
    values = {
        "codes": np.ones((2, 16), np.int8),
        "users": np.ones((1, 16), np.int16),
        "blocked": np.zeros((1, 1), np.uint64),
        "counts": np.array([1], np.int32),
        "threads": 1,
    }
    kernel.light_scan(**values)
    with pytest.raises(error, match=message):
        kernel.light_scan(**{**values, **changed})


def test_the_native_functions_alone_stay_within_their_arrays():
    with pytest.raises(ValueError, match="blocked has 2 rows; expected 1, one per user"):
        _kernels.expand_through(**arguments(blocked=np.zeros((2, 1), np.uint64)))
    with pytest.raises(ValueError, match="blocked has 0 words per row; expected at least 1 for 2 items"):
        _kernels.expand_through(**arguments(blocked=np.zeros((1, 0), np.uint64)))
