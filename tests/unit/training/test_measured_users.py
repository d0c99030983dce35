"""Metrics of a search for users whose exact top K and ground truth items are known."""

import numpy as np
import pytest
from support.searching import TableScorer, make_graph

from nann.search_input import SearchIndex, UserBatch
from nann.search_params import SearchParams
from nann.search_result import SearchResult
from nann.training.data.prepared import Queries
from nann.training.search.measured_users import MeasuredUsers, search_users

INDEX = SearchIndex(make_graph([[[1], [2], [3], []], [[]] * 4], [1, 0, 0, 0]), None)
SCORER = TableScorer([[1, 2, 3, 4], [4, 3, 2, 1]])
ALL = SearchParams(2, (1, 4), (1, 3))


@pytest.fixture
def users():
    """Two users; the ground truth items are 3 and 0 for the first, 3 for the second."""
    behaviors = np.array([[0], [1]], np.int32)
    nothing = np.zeros(3, np.int64), np.zeros(0, np.int32)
    targets = np.array([0, 2, 3]), np.array([0, 3, 3], np.int32)
    queries = Queries(behaviors, behaviors.astype(np.int64), behaviors, *targets, np.array([7, 8], np.int32), *nothing)
    batch = UserBatch(SCORER.states(), behaviors)
    return MeasuredUsers.of(SCORER, batch, queries, 4, 2)


def test_a_search_that_finds_everything(users):
    np.testing.assert_array_equal(users.exact, [[3, 2], [0, 1]])
    measures = users.measure(INDEX, SCORER, ALL)
    assert measures == {
        "recall_all": 0.25,  # 1 of 2 and 0 of 1
        "recall_retrieval": 0.25,
        "recall_delta": 0.0,
        "coverage": 1.0,
        "share_scored": 1.0,
        "items_scored": 4.0,
    }
    walk = users.walk(INDEX, SCORER, ALL)
    assert walk == {"evaluations": 4.0, "recall": 0.25, "coverage": 1.0}


def test_what_a_search_misses(users):
    found = SearchResult(
        np.int32([[2, -1], [0, 3]]), np.zeros((2, 2), np.float32), np.int32([1, 3]), np.int32([1, 1]), np.int64([4, 4])
    )
    measures = users.measures(found, 4)
    assert (measures["coverage"], measures["recall_retrieval"], measures["recall_delta"]) == (0.5, 0.5, -1.0)
    assert users.point(found.items, 5) == {"evaluations": 5.0, "recall": 0.5, "coverage": 0.5}


def test_there_is_no_loss_if_nothing_could_be_found(users):
    assert users.take(np.array([1])).measure(INDEX, SCORER, ALL)["recall_delta"] is None


def test_some_of_the_users_and_of_their_items(users):
    second = users.take(np.array([1]))
    assert (len(users), len(second), second.queries.users.tolist()) == (2, 1, [8])
    np.testing.assert_array_equal(second.batch.own_items, [[1]])
    np.testing.assert_array_equal(second.exact, [[0, 1]])
    assert (users.top_k, users.cut(1).top_k) == (2, 1)
    np.testing.assert_array_equal(users.cut(1).exact, [[3], [0]])


def test_users_are_searched_for_in_blocks(users):
    whole, blocks = (search_users(INDEX, SCORER, users.batch, ALL, block=block) for block in (2, 1))
    for name in ("items", "scores", "items_scored", "rounds"):
        np.testing.assert_array_equal(getattr(whole, name), getattr(blocks, name))
