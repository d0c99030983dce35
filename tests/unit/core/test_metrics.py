"""Metrics, computed by hand."""

import math

import numpy as np
import pytest

from nann.errors import DataError
from nann.metrics import coverage, ndcg, recall, recall_delta, share_scored, targets_found

RETRIEVED = np.array([[1, 2, 3], [4, 5, -1]], np.int32)


def test_recall_is_the_mean_of_the_users_shares():
    # User 0 finds 1 of {1, 9}, user 1 all of {5}: (1/2 + 1) / 2.
    assert recall(RETRIEVED, np.array([0, 2, 3]), np.array([9, 1, 5])) == pytest.approx(0.75)


def test_a_hit_counts_for_its_own_user_only():
    assert recall(RETRIEVED, np.array([0, 1, 2]), np.array([4, 1])) == 0.0


def test_items_are_sets_and_padding_is_no_item():
    # Targets {3, 8} and {4}; duplicates and -1 on both sides change nothing.
    twice = np.array([[3, 3, -1], [4, -1, 4]])
    assert recall(twice, np.array([0, 4, 6]), np.array([3, 8, 8, -1, 4, 4])) == pytest.approx(0.75)


def test_item_ids_may_be_as_large_as_int64():
    big = np.array([[2**62, 5]])
    assert recall(big, np.array([0, 2]), np.array([2**62, 2**62 + 1])) == pytest.approx(0.5)


def test_which_targets_were_found():
    # Of user 0 {9, 1}, of user 1 {5, 2}; 2 was retrieved for user 0 only.
    found = targets_found(RETRIEVED, np.array([0, 2, 4]), np.array([9, 1, 5, 2]))
    np.testing.assert_array_equal(found, [False, True, True, False])
    with pytest.raises(DataError, match="expected 2 users"):
        targets_found(RETRIEVED, np.array([0, 1]), np.array([9]))


def test_coverage_is_the_share_of_the_exact_items_found():
    # 2 of {1, 2, 7} and 1 of {5}, in any order.
    assert coverage(RETRIEVED, np.array([[7, 2, 1], [5, -1, -1]])) == pytest.approx((2 / 3 + 1) / 2)


def test_ndcg_counts_how_far_up_the_targets_are():
    # User 0: place 3 of {3, 9}, of which the best list has both first; user 1: place 2 of {5}.
    expected = (1 / math.log2(4) / (1 + 1 / math.log2(3)) + 1 / math.log2(3)) / 2
    assert ndcg(RETRIEVED, np.array([0, 2, 3]), np.array([9, 3, 5])) == pytest.approx(expected)


def test_ndcg_of_the_best_list_is_1():
    # The row is shorter than the four targets; an item that comes twice counts at its first place.
    assert ndcg(np.array([[4, 4, 2]]), np.array([0, 1]), np.array([4])) == pytest.approx(1)
    assert ndcg(np.array([[4, 2, 1]]), np.array([0, 4]), np.array([1, 2, 3, 4])) == pytest.approx(1)
    assert ndcg(np.array([[7, -1, -1]]), np.array([0, 1]), np.array([4])) == 0


def test_ndcg_is_the_plain_sum_over_places():
    rng = np.random.default_rng(1)
    retrieved = np.array([rng.permutation(40)[:12] for _ in range(30)])
    retrieved[::3, 9:] = -1
    targets = [rng.choice(40, rng.integers(1, 20), replace=False) for _ in retrieved]
    each = []
    for row, wanted in zip(retrieved, targets, strict=True):
        gained = sum(1 / np.log2(place + 2) for place, item in enumerate(row) if item in wanted)
        each.append(gained / sum(1 / np.log2(place + 2) for place in range(min(len(wanted), 12))))
    indptr = np.cumsum([0, *map(len, targets)])
    assert ndcg(retrieved, indptr, np.concatenate(targets)) == pytest.approx(np.mean(each))


def test_recall_delta_is_relative_to_recall_all():
    assert recall_delta(0.25, 0.24) == pytest.approx(0.04)
    assert math.isnan(recall_delta(0.0, 0.0))


def test_share_scored_is_the_mean_over_users():
    assert share_scored(np.array([10, 30], np.int32), 1000) == pytest.approx(0.02)


def test_users_without_targets_are_refused():
    with pytest.raises(DataError, match="1 of 2 users have no target item; leave them out"):
        recall(RETRIEVED, np.array([0, 0, 1]), np.array([5]))
    with pytest.raises(DataError, match="1 of 2 users have no target item; leave them out"):
        ndcg(RETRIEVED, np.array([0, 0, 1]), np.array([5]))
    with pytest.raises(DataError, match="1 of 2 users have no exact item; leave them out"):
        coverage(RETRIEVED, np.array([[1, 2], [-1, -1]]))


def test_no_users_are_refused():
    with pytest.raises(DataError, match="0 of 0 users have no exact item"):
        coverage(np.empty((0, 2), np.int32), np.empty((0, 2), np.int32))
    with pytest.raises(DataError, match="items_scored is empty; expected at least one user"):
        share_scored(np.array([], np.int32), 10)


@pytest.mark.parametrize("indptr", [[0, 2], [0, 1, 3]])
def test_targets_that_do_not_fit_are_refused(indptr):
    with pytest.raises(DataError, match=r"target_indptr is for \d users and \d targets; expected 2 users, .*, and 2"):
        recall(RETRIEVED, np.array(indptr), np.array([1, 2]))


def test_exact_items_of_other_users_are_refused():
    with pytest.raises(DataError, match="exact has 1 rows; expected 2, as in retrieved"):
        coverage(RETRIEVED, np.array([[1]]))
