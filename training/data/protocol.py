"""The paper's evaluation protocol (section 4) on rows already sorted by user and time.

A group has no order within itself: it is a basket, or one behaviour if the log has no baskets.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nann.errors import ConfigError, DataError

from .numbering import KeptUsers

TRAIN, VALIDATION, TEST = 0, 1, 2
SPLITS = {"train": TRAIN, "validation": VALIDATION, "test": TEST}

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


@dataclass(frozen=True)
class Groups:
    """Where each group begins.

    Attributes:
        starts: `int64[G + 1]`, first row of each group, and last the number of rows.
        user_first_group: `int64[U]`, each user's first group.
        counts: `int64[U]`, each user's number of groups.
    """

    starts: npt.NDArray[np.int64]
    user_first_group: npt.NDArray[np.int64]
    counts: npt.NDArray[np.int64]

    @classmethod
    def of(cls, group_first: npt.NDArray[np.int64], users: KeptUsers) -> Groups:
        """Finds the groups, given the first row of each row's group, `int64[R]`."""
        row_count = group_first.shape[0]
        starts = np.flatnonzero(group_first == np.arange(row_count))
        first = np.searchsorted(starts, users.first)
        counts = np.searchsorted(starts, users.end) - first
        return cls(np.append(starts, row_count).astype(np.int64), first.astype(np.int64), counts.astype(np.int64))


def split_users(groups: Groups, protocol: Protocol) -> npt.NDArray[np.uint8]:
    """Draws validation and test users at random from those with a behaviour before the ground truth; the others train.

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
    split = np.full(kept, TRAIN, np.uint8)
    split[drawn[:validation]] = VALIDATION
    split[drawn[validation : validation + test]] = TEST
    return split


def target_rows(groups: Groups, split: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    """Rows of the ground truth: the ceil(n / 2)-th group (1-based) of each validation and test user in `uint8[U]`.

    Returns:
        `int64[U, 2]`: first row and the row after the last; -1 for training users.
    """
    middle = groups.user_first_group + (groups.counts + 1) // 2 - 1
    rows = np.stack([groups.starts[middle], groups.starts[middle + 1]], axis=1)  # [U, 2]
    return np.where((split == TRAIN)[:, None], np.int64(-1), rows)
