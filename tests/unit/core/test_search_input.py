"""The inputs of searches are checked when they are made."""

import numpy as np
import pytest
from support.searching import make_graph

from nann.errors import BundleError, RequestError
from nann.search_input import SearchIndex, UserBatch

GRAPH = make_graph([[[1], [2], []]], [0, 0, 0])


def batch(users, first=0.0):
    states = np.arange(first, first + users, dtype=np.float32)[:, None]
    return UserBatch(states, np.tile(np.int32([4, -1]), (users, 1)))


@pytest.mark.parametrize("states", [np.zeros((2, 1)), np.zeros(2, np.float32)])
def test_user_states_of_another_kind_are_refused(states):
    with pytest.raises(RequestError, match=r"user_states is float.*; expected float32\[B, S\], one row per user"):
        UserBatch(states, None)


@pytest.mark.parametrize("own", [np.zeros((1, 4), np.int32), np.zeros((2, 4), np.int64), np.zeros(2, np.int32)])
def test_own_items_need_one_row_a_user(own):
    with pytest.raises(RequestError, match=r"own_items is int.*; expected int32\[2, L\], one row per user"):
        UserBatch(np.zeros((2, 3), np.float32), own)


@pytest.mark.parametrize("light", [np.zeros((3, 2)), np.zeros((2, 2), np.float32), np.zeros(3, np.float32)])
def test_light_vectors_need_one_row_an_item(light):
    with pytest.raises(
        BundleError, match=r"light_vectors is float.*; expected float32\[3, d\], one row per item of the"
    ):
        SearchIndex(GRAPH, light)


def test_neither_part_can_be_left_out():
    with pytest.raises(TypeError, match="light_vectors"):
        SearchIndex(GRAPH)
    with pytest.raises(TypeError, match="own_items"):
        UserBatch(np.zeros((2, 3), np.float32))


def test_the_width_of_the_light_score():
    assert SearchIndex(GRAPH, None).light_width == 0
    assert SearchIndex(GRAPH, np.zeros((3, 5), np.float32)).light_width == 5


@pytest.mark.parametrize("rows", [slice(1, 3), np.array([1, 2])])
def test_some_of_the_users_keep_their_own_items(rows):
    some = batch(4)[rows]
    assert len(some) == 2
    np.testing.assert_array_equal(some.states, [[1], [2]])
    np.testing.assert_array_equal(some.own_items, [[4, -1]] * 2)
    assert UserBatch(batch(4).states, None)[rows].own_items is None


def test_several_batches_as_one():
    whole = UserBatch.concatenate([batch(2), batch(1, first=2)])
    np.testing.assert_array_equal(whole.states, [[0], [1], [2]])
    np.testing.assert_array_equal(whole.own_items, [[4, -1]] * 3)
    assert UserBatch.concatenate([batch(2), UserBatch(batch(1).states, None)]).own_items is None


@pytest.mark.parametrize("blocked", [np.zeros((1, 4), np.uint64), np.zeros((2, 4), np.int64), np.zeros(2, np.uint64)])
def test_blocked_items_need_one_row_a_user(blocked):
    with pytest.raises(RequestError, match=r"blocked is u?int64.*; expected uint64\[2, W\], one row per user"):
        UserBatch(np.zeros((2, 3), np.float32), None, blocked)


def test_blocked_items_of_several_batches():
    some = UserBatch(batch(2).states, None, np.array([[1], [2]], np.uint64))
    np.testing.assert_array_equal(some[1:].blocked, [[2]])
    np.testing.assert_array_equal(UserBatch.concatenate([batch(1), some]).blocked, [[0], [1], [2]])
    assert UserBatch.concatenate([batch(1), batch(2)]).blocked is None
