"""Differences of recall and their standard errors, against resampled users."""

from __future__ import annotations

import numpy as np
import pytest

from nann.training.studies.measures.paired import class_differences, recall_difference

USERS = 400


@pytest.fixture
def methods():
    """Two methods that find whole users or nothing of them, more or less: targets of a user depend on each other."""
    rng = np.random.default_rng(5)
    sizes = rng.integers(1, 6, USERS)
    easy = np.repeat(rng.random(USERS), sizes)
    one, other = ((rng.random(len(easy)) < power * easy).astype(np.float64) for power in (0.9, 0.7))
    classes = rng.integers(3, size=len(easy))
    return one, other, np.append(0, sizes.cumsum()), classes


def plain(one, other, indptr, users):
    """The difference of the mean recall of these users, by loops."""
    rows = [slice(*indptr[user : user + 2]) for user in users]
    return np.mean([one[row].mean() for row in rows]) - np.mean([other[row].mean() for row in rows])


def test_the_difference_and_its_error_are_those_of_resampled_users(methods):
    one, other, indptr, _ = methods
    found = recall_difference(one, other, indptr)
    assert found["difference"] == pytest.approx(plain(one, other, indptr, range(USERS)))
    rng = np.random.default_rng(6)
    resampled = [plain(one, other, indptr, rng.integers(USERS, size=USERS)) for _ in range(400)]
    assert found["standard_error"] == pytest.approx(np.std(resampled), rel=0.15)


def test_a_class_counts_its_targets_alike_and_its_error_is_that_of_resampled_users(methods):
    one, other, indptr, classes = methods
    found = class_differences(one, other, indptr, classes, 3)
    owners = np.repeat(np.arange(USERS), np.diff(indptr))
    rng = np.random.default_rng(7)
    for each, measured in enumerate(found):
        chosen = classes == each
        assert measured["difference"] == pytest.approx(one[chosen].mean() - other[chosen].mean())
        sums = np.bincount(owners[chosen], (one - other)[chosen], USERS)
        counts = np.bincount(owners[chosen], minlength=USERS)
        draws = [rng.integers(USERS, size=USERS) for _ in range(1000)]
        resampled = [sums[draw].sum() / counts[draw].sum() for draw in draws]
        assert measured["standard_error"] == pytest.approx(np.std(resampled), rel=0.15)


def test_few_users_have_no_error():
    one, other = np.array([1.0, 0.0]), np.array([0.0, 0.0])
    assert recall_difference(one, other, np.array([0, 2])) == {"difference": 0.5, "standard_error": None}
    of_classes = class_differences(one, other, np.array([0, 1, 2]), np.array([2, 2]), 4)
    assert of_classes == [None, None, {"difference": 0.5, "standard_error": pytest.approx(0.5)}, None]
