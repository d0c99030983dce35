"""Conditions as bitmaps, against sets of Python."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import tiny_bundle

from nann import item_sets
from nann.errors import RequestError
from nann.request_conditions import RequestConditions, blocked, items_matching
from nann.search_params import SearchOptions


@st.composite
def conditions(draw):
    """Users, N, and conditions as sets."""
    items, users = draw(st.integers(1, 140)), draw(st.integers(1, 3))
    some = st.sets(st.integers(0, items - 1))
    each = st.lists(some, min_size=users, max_size=users)
    return users, items, draw(st.lists(some, max_size=3)), draw(st.none() | each), draw(st.lists(each, max_size=2))


def as_rows(each):
    """`int32[B, X]`, padded with -1 on both sides."""
    rows = np.full((len(each), max(map(len, each)) + 2), -1, np.int32)
    for row, items in zip(rows, each, strict=True):
        row[1 : len(items) + 1] = list(items)
    return rows


@given(conditions())
def test_all_conditions_must_hold(drawn):
    users, items, matching, allowed, excluded = drawn
    rows = blocked(
        users,
        items,
        matching=[item_sets.of_items(np.array(list(one), np.int32), items) for one in matching],
        allowed=None if allowed is None else as_rows(allowed),
        excluded=[as_rows(each) for each in excluded],
    )
    if rows is None:
        assert (matching, allowed, excluded) == ([], None, [])
        return
    counts = items_matching(rows, users, items)
    for user, row in enumerate(rows):
        shown = set(range(items)).intersection(*matching, *([] if allowed is None else [allowed[user]]))
        shown -= set().union(*(each[user] for each in excluded))
        assert item_sets.members(row).tolist() == sorted(set(range(items)) - shown)
        assert counts[user] == len(shown)


def test_without_conditions_all_items_match():
    assert items_matching(None, 2, 7).tolist() == [7, 7]


def test_an_allow_list_of_length_0_allows_nothing():
    assert items_matching(blocked(1, 70, allowed=np.zeros((1, 0), np.int32)), 1, 70).tolist() == [0]


def test_a_filter_needs_attributes(tmp_path):
    conditions = RequestConditions(tiny_bundle.make_bundle(tmp_path / "bundle"))
    with pytest.raises(
        RequestError, match="parameter filter came, and the items have no attributes here; leave it out"
    ):
        conditions.blocked(SearchOptions(filter="a = 1"), np.zeros((1, 1), np.int32))


def test_what_filters_match_is_not_changed():
    matching = item_sets.of_items(np.array([1, 2], np.int32), 70)
    matching.flags.writeable = False
    blocked(1, 70, matching=[matching], excluded=[np.array([[1]], np.int32)])
    assert item_sets.members(matching).tolist() == [1, 2]
    with pytest.raises(IndexError, match="70"):
        blocked(1, 64, excluded=[np.array([[70]], np.int32)])
