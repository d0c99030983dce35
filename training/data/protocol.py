"""The paper's evaluation protocol (section 4) on rows already sorted by user and time.

A group is what has no order within itself: one basket, or one behaviour where the log has no baskets.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from nann.errors import ConfigError, DataError

TRAIN, VALIDATION, TEST = 0, 1, 2
SPLITS = {"train": TRAIN, "validation": VALIDATION, "test": TEST}

DEFAULT_SHARE = 0.1
DEFAULT_MOST = 10_000
"""Validation and test users where no number is given: a tenth of the users each, at most 10,000 as in the paper."""

MIN_GROUPS = 3
"""With fewer groups the ceil(n / 2)-th is the first, and nothing comes before it to predict it from."""


@dataclass(frozen=True)
class Protocol:
    """How users are kept and split.

    Attributes:
        min_behaviors: users with fewer behaviours are left out.
        validation_users: how many users to validate on; None: a tenth, at most 10,000.
        test_users: how many users to test on; None: the same.
        seed: of the random split.
        whole_corpus: number all items of the log; else only those that the kept users met.
    """

    min_behaviors: int = 10
    validation_users: int | None = None
    test_users: int | None = None
    seed: int = 0
    whole_corpus: bool = False

    def __post_init__(self) -> None:
        for name, value, least in (
            ("min_behaviors", self.min_behaviors, 1),
            ("validation_users", self.validation_users, 0),
            ("test_users", self.test_users, 0),
            ("seed", self.seed, 0),
        ):
            if value is not None and value < least:
                raise ConfigError(f"{name} is {value}; expected at least {least}")

    def settings(self) -> dict[str, Any]:
        """The manifest's `protocol` entry."""
        return asdict(self)


@dataclass(frozen=True)
class Groups:
    """Where each group begins.

    Attributes:
        starts: `int64[G + 1]`, first row of each group; last value: the number of rows.
        user_first_group: `int64[U]`, each user's first group.
        counts: `int64[U]`, each user's number of groups.
    """

    starts: npt.NDArray[np.int64]
    user_first_group: npt.NDArray[np.int64]
    counts: npt.NDArray[np.int64]

    @classmethod
    def of(
        cls,
        group_first: npt.NDArray[np.int64],
        user_first: npt.NDArray[np.int64],
        user_end: npt.NDArray[np.int64],
    ) -> Groups:
        """Finds the groups.

        Args:
            group_first: `int64[R]`, first row of each row's group.
            user_first: `int64[U]`, each user's first row.
            user_end: `int64[U]`, the row after each user's last.
        """
        row_count = group_first.shape[0]
        starts = np.flatnonzero(group_first == np.arange(row_count))
        first = np.searchsorted(starts, user_first)
        counts = np.searchsorted(starts, user_end) - first
        return cls(np.append(starts, row_count).astype(np.int64), first.astype(np.int64), counts.astype(np.int64))


def split_users(groups: Groups, protocol: Protocol) -> npt.NDArray[np.uint8]:
    """Draws validation and test users at random; the rest train.

    Only users whose ground truth has a behaviour before it are drawn; with the paper's 10 behaviours all have.

    Returns:
        `uint8[U]`: 0 train, 1 validation, 2 test.

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
    split = np.full(groups.counts.shape[0], TRAIN, np.uint8)
    split[drawn[:validation]] = VALIDATION
    split[drawn[validation : validation + test]] = TEST
    return split


def target_rows(groups: Groups, split: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    """Rows of the ground truth: the ceil(n / 2)-th group (1-based) of each validation and test user.

    Args:
        groups: of all users.
        split: `uint8[U]`.

    Returns:
        `int64[U, 2]`: first row and the row after the last; -1 for users to train on.
    """
    middle = groups.user_first_group + (groups.counts + 1) // 2 - 1
    rows = np.stack([groups.starts[middle], groups.starts[middle + 1]], axis=1)  # [U, 2]
    return np.where((split == TRAIN)[:, None], np.int64(-1), rows)
