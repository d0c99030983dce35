"""The paper's evaluation protocol (section 4) on rows already sorted by user and time.

A group has no order within itself: it is a basket, or one behaviour if the log has no baskets.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nann.errors import ConfigError, DataError

from .numbering import KeptUsers

TARGETS = ("validation", "test")
"""The splits with ground truth."""

NO_TARGET = -1

DEFAULT_SHARE = 0.1
DEFAULT_MOST = 10_000
"""By default a tenth of the users each are validation and test users, at most 10,000 as in the paper."""

MIN_GROUPS = 3
"""With fewer groups the ceil(n / 2)-th is the first one, which has no behaviour before it."""


@dataclass(frozen=True)
class Protocol:
    """How users are kept and split.

    Attributes:
        min_behaviors: users with fewer behaviours are left out.
        validation_users, test_users: how many of each; None: a tenth of the users, at most 10,000.
        seed: random seed of the split.
        whole_corpus: keep all items of the log, not only those of the kept users.
        exclude_history: items of a user's history are neither answers nor ground truth.
    """

    min_behaviors: int = 10
    validation_users: int | None = None
    test_users: int | None = None
    seed: int = 0
    whole_corpus: bool = False
    exclude_history: bool = False

    def __post_init__(self) -> None:
        for name, value, least in (
            ("min_behaviors", self.min_behaviors, 1),
            ("validation_users", self.validation_users, 0),
            ("test_users", self.test_users, 0),
            ("seed", self.seed, 0),
        ):
            if value is not None and value < least:
                raise ConfigError(f"{name} is {value}; expected at least {least}")


@dataclass(frozen=True)
class Groups:
    """Where each group begins.

    Attributes:
        starts: `int64[G + 1]`, first row of each group, and last the number of rows.
        user_first_group: `int64[U]`, each user's first group.
        counts: `int64[U]`, each user's number of groups.
        user_first, user_end: `int64[U]`, each user's first row and the row after the last.
    """

    starts: npt.NDArray[np.int64]
    user_first_group: npt.NDArray[np.int64]
    counts: npt.NDArray[np.int64]
    user_first: npt.NDArray[np.int64]
    user_end: npt.NDArray[np.int64]

    @classmethod
    def of(cls, group_first: npt.NDArray[np.int64], users: KeptUsers) -> Groups:
        """Finds the groups, given the first row of each row's group, `int64[R]`."""
        row_count = group_first.shape[0]
        starts = np.flatnonzero(group_first == np.arange(row_count))
        first = np.searchsorted(starts, users.first)
        counts = np.searchsorted(starts, users.end) - first
        starts, first, counts = (array.astype(np.int64) for array in (np.append(starts, row_count), first, counts))
        return cls(starts, first, counts, users.first, users.end)


@dataclass(frozen=True)
class Split:
    """Which rows are for what.

    Attributes:
        train_end: `int64[U]`, the row after each user's last training row; the user's first row if it does not train.
        targets: "validation" and "test": `int64[U, 2]`, first row of the ground truth and the row after its last; -1
            for a user without.
    """

    train_end: npt.NDArray[np.int64]
    targets: Mapping[str, npt.NDArray[np.int64]]


def split_rows(groups: Groups, protocol: Protocol) -> Split:
    """Draws validation and test users at random from those with a behaviour before the ground truth; the others train.

    The ground truth of a user is the ceil(n / 2)-th of n groups (1-based).

    Raises:
        DataError: if there are too few users.
    """
    eligible = np.flatnonzero(groups.counts >= MIN_GROUPS)
    default = min(max(int(eligible.size * DEFAULT_SHARE), 1), DEFAULT_MOST)
    validation = default if protocol.validation_users is None else protocol.validation_users
    test = default if protocol.test_users is None else protocol.test_users
    kept = groups.counts.shape[0]
    if eligible.size < validation + test or kept < validation + test + 1:
        raise DataError(
            f"the log has {kept:,} users with at least {protocol.min_behaviors} behaviours, {eligible.size:,} of them "
            f"with one before their ground truth; expected {validation:,} of these to validate on, {test:,} to test on "
            "and another user to train on: ask for fewer with --validation-users and --test-users"
        )
    drawn = np.random.default_rng(protocol.seed).permutation(eligible)
    users = {"validation": drawn[:validation], "test": drawn[validation : validation + test]}
    middle = groups.user_first_group + (groups.counts + 1) // 2 - 1
    train_end = groups.user_end.copy()
    for some in users.values():
        train_end[some] = groups.user_first[some]
    return Split(train_end, {name: _targets(groups, some, middle) for name, some in users.items()})


def _targets(groups: Groups, users: npt.NDArray[np.int64], group: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Rows `int64[U, 2]` of group `group[u]` of each of some users; -1 for the others."""
    rows = np.full((groups.counts.shape[0], 2), NO_TARGET, np.int64)
    rows[users] = np.stack([groups.starts[group[users]], groups.starts[group[users] + 1]], axis=1)
    return rows
