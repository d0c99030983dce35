"""The padding grid: what it covers, how it pads, and that a planned grid is the best possible."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nann.errors import ConfigError, ScorerError
from nann.shape_grid import DEFAULT_GRID, MAX_BATCH_SIZE, ShapeGrid, plan_grid

GRID = ShapeGrid((1, 4, 16), (3, 8, 20))


def test_points_and_ranges():
    assert GRID.points == [(b, c) for c in (3, 8, 20) for b in (1, 4, 16)]
    assert GRID.width_ranges == [(1, 3), (4, 8), (9, 20)]
    assert DEFAULT_GRID.batch_sizes[-1] == MAX_BATCH_SIZE


@pytest.mark.parametrize(
    ("batch_sizes", "widths", "message"),
    [
        ((16,), (), r"widths of the padding grid are \[\]; expected at least one"),
        ((16,), (8, 8), r"widths of the padding grid are \[8, 8\]; .* ascending"),
        ((0, 16), (8,), r"batch_sizes of the padding grid are \[0, 16\]; .* each at least 1"),
        ((1, 8), (8,), "batch_sizes of the padding grid end with 8; expected 16"),
    ],
)
def test_an_impossible_grid_is_refused(batch_sizes, widths, message):
    with pytest.raises(ConfigError, match=message):
        ShapeGrid(batch_sizes, widths)


def test_more_users_than_a_call_may_have():
    with pytest.raises(ScorerError, match="has 17 users; expected at most 16"):
        GRID.batch_size(17)


def test_it_is_written_to_and_read_from_a_manifest():
    assert ShapeGrid.of_manifest({"shape_grid": GRID.to_manifest()}) == GRID
    assert ShapeGrid.of_manifest({}) == DEFAULT_GRID


@given(st.integers(1, 16), st.integers(1, 70))
def test_padded_calls_hold_every_candidate_once_and_have_the_grids_shapes(users, width):
    candidates = np.arange(users * width, dtype=np.int32).reshape(users, width)
    back = np.full_like(candidates, -7)
    for columns, part in GRID.padded(candidates):
        assert part.shape in GRID.points
        count = columns.stop - columns.start
        back[:, columns] = part[:users, :count]
        assert (part[users:] == -1).all()
        assert (part[:, count:] == -1).all()
    np.testing.assert_array_equal(back, candidates)
    computed = sum(part.size for _, part in GRID.padded(candidates))
    assert GRID.padded_cells(np.array([[users, width]])).tolist() == [computed]


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(1, 16), st.integers(1, 12)), min_size=1, max_size=12), st.integers(1, 5))
def test_no_other_grid_pads_less(calls, count):
    """Against every possible choice of widths."""
    calls = np.array(calls, np.int64)
    planned = plan_grid(calls, count, GRID.batch_sizes, multiple=1)
    assert len(planned.widths) <= count
    assert planned.widths[-1] == calls[:, 1].max()
    others = [
        ShapeGrid(GRID.batch_sizes, (*lower, int(calls[:, 1].max())))
        for size in range(count)
        for lower in combinations(range(1, int(calls[:, 1].max())), size)
    ]
    best = min(grid.padded_cells(calls).sum() for grid in others)
    assert planned.padded_cells(calls).sum() == best


def test_planned_widths_are_multiples():
    planned = plan_grid(np.array([[1, 61], [3, 500], [16, 700]], np.int64), 2)
    assert all(width % 64 == 0 for width in planned.widths)
    assert planned.widths[-1] == 704


@pytest.mark.parametrize(("calls", "count"), [(np.zeros((0, 2), np.int64), 3), (np.ones((1, 2), np.int64), 0)])
def test_nothing_to_plan(calls, count):
    with pytest.raises(ConfigError, match="expected at least 1 of each"):
        plan_grid(calls, count)
