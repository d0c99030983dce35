"""Which rows are training data and which are ground truth, for rows already sorted by user and time.

A group has no order within itself: it is a basket, or one behaviour if the log has no baskets.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nann.errors import DataError

from .numbering import KeptUsers
from .protocol import ALL, NO_TARGET, PAPER, Protocol
from .row_ranges import unique_pairs

DEFAULT_SHARE = 0.1
DEFAULT_MOST = 10_000
"""By default a tenth of the users are validation users, at most 10,000 as in the paper; so are its test users."""

MIN_GROUPS = 3
"""With fewer groups the ceil(n / 2)-th is the first one, which has no behaviour before it."""

Int32Array = npt.NDArray[np.int32]
Int64Array = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Groups:
    """Where each group begins.

    Attributes:
        starts: `int64[G + 1]`, first row of each group, and last the number of rows.
        user_first_group: `int64[U]`, each user's first group.
        counts: `int64[U]`, each user's number of groups.
        user_first, user_end: `int64[U]`, each user's first row and the row after the last.
    """

    starts: Int64Array
    user_first_group: Int64Array
    counts: Int64Array
    user_first: Int64Array
    user_end: Int64Array

    @classmethod
    def of(cls, group_first: Int64Array, users: KeptUsers) -> Groups:
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

    train_end: Int64Array
    targets: Mapping[str, Int64Array]


@dataclass(frozen=True)
class Roles:
    """What users were for in a data set before it was appended to, `bool[U]` each; new ones for nothing.

    They stay what they were: a model that goes on from an earlier one knows what that one trained on.
    """

    train: npt.NDArray[np.bool_]
    validation: npt.NDArray[np.bool_]
    test: npt.NDArray[np.bool_]

    def first_choice(self, drawn: npt.NDArray[np.intp], split: str) -> npt.NDArray[np.intp]:
        """Of drawn users those that may be in a split: those that were, then the new ones."""
        same = self.validation if split == "validation" else self.test
        known = self.train | self.validation | self.test
        return np.concatenate([drawn[same[drawn]], drawn[~known[drawn]]])


def split_rows(groups: Groups, protocol: Protocol, cut: Int64Array | None = None, roles: Roles | None = None) -> Split:
    """Applies a protocol; users to validate and to test on are drawn at random.

    Args:
        groups: the groups of the kept users.
        protocol: what to apply.
        cut: for a time split `int64[U]`, each user's first row at or after the time, or the row after its last; a group
            begins there.
        roles: of a data set that is appended to.

    Raises:
        DataError: if there are too few users.
    """
    if protocol.kind == PAPER:
        return _paper(groups, protocol, roles)
    split = _leave_one_out(groups, protocol, roles) if cut is None else _time_split(groups, protocol, cut, roles)
    if not (split.train_end > groups.starts[groups.user_first_group + 1]).any():
        raise DataError(
            "no user has two behaviours or baskets to train on, of which the first is the context of the second; "
            "give a longer log, or ask for fewer with --validation-users"
        )
    return split


def _paper(groups: Groups, protocol: Protocol, roles: Roles | None) -> Split:
    """Section 4: the ground truth is the ceil(n / 2)-th of n groups (1-based); users without ground truth train."""
    eligible = np.flatnonzero(groups.counts >= MIN_GROUPS)
    default = _default_count(eligible)
    validation, test = (
        default if wanted is None else int(wanted) for wanted in (protocol.validation_users, protocol.test_users)
    )
    kept = groups.counts.shape[0]
    if eligible.size < validation + test or kept < validation + test + 1:
        raise DataError(
            f"the log has {kept:,} users with at least {protocol.min_behaviors} behaviours, {eligible.size:,} of them "
            f"with one before their ground truth; expected {validation:,} of these to validate on, {test:,} to test on "
            "and another user to train on: ask for fewer with --validation-users and --test-users"
        )
    drawn = np.random.default_rng(protocol.seed).permutation(eligible)
    users = {"validation": drawn[:validation], "test": drawn[validation : validation + test]}
    if roles is not None:
        users["validation"] = roles.first_choice(drawn, "validation")[:validation]
        others = drawn[~np.isin(drawn, users["validation"])]
        users["test"] = roles.first_choice(others, "test")[:test]
    middle = groups.user_first_group + (groups.counts + 1) // 2 - 1
    train_end = groups.user_end.copy()
    for some in users.values():
        train_end[some] = groups.user_first[some]
    return Split(train_end, {name: _group_rows(groups, some, middle) for name, some in users.items()})


def _leave_one_out(groups: Groups, protocol: Protocol, roles: Roles | None) -> Split:
    """The last group is for the test, and a sample of users validates on the one before it; the rest is training."""
    rng = np.random.default_rng(protocol.seed)
    last = groups.user_first_group + groups.counts - 1
    several, many = np.flatnonzero(groups.counts >= 2), np.flatnonzero(groups.counts >= 3)
    test = _draw(rng, several, protocol.test_users, min(max(several.size, 1), DEFAULT_MOST), "test")
    validation = _draw(rng, many, protocol.validation_users, _default_count(many), "validation", roles)
    train_end = np.where(groups.counts >= 2, groups.starts[last], groups.user_end)
    train_end[validation] = groups.starts[last[validation] - 1]
    targets = {"validation": _group_rows(groups, validation, last - 1), "test": _group_rows(groups, test, last)}
    return Split(train_end, targets)


def _time_split(groups: Groups, protocol: Protocol, cut: Int64Array, roles: Roles | None) -> Split:
    """All from the time on is for the test, and a sample of users validates on the last group before it."""
    rng = np.random.default_rng(protocol.seed)
    before = np.searchsorted(groups.starts, cut) - groups.user_first_group  # groups before the time, int64[U]
    both, many = np.flatnonzero((before > 0) & (cut < groups.user_end)), np.flatnonzero(before >= 2)
    if not both.size:
        early = int((cut - groups.user_first).sum())
        raise DataError(
            f"no user has behaviours on both sides of --split-time {protocol.split_time}: {early:,} behaviours are "
            f"before it and {int(groups.starts[-1]) - early:,} are not; choose another time"
        )
    test = _draw(rng, both, protocol.test_users, min(both.size, DEFAULT_MOST), "test")
    validation = _draw(rng, many, protocol.validation_users, _default_count(many), "validation", roles)
    test_rows = np.full((len(cut), 2), NO_TARGET, np.int64)
    test_rows[test] = np.stack([cut[test], groups.user_end[test]], axis=1)
    train_end, last = cut.copy(), groups.user_first_group + before - 1
    train_end[validation] = groups.starts[last[validation]]
    return Split(train_end, {"validation": _group_rows(groups, validation, last), "test": test_rows})


def _default_count(eligible: npt.NDArray[np.intp]) -> int:
    return min(max(int(eligible.size * DEFAULT_SHARE), 1), DEFAULT_MOST)


def _draw(
    rng: np.random.Generator,
    eligible: npt.NDArray[np.intp],
    wanted: int | str | None,
    default: int,
    split: str,
    roles: Roles | None = None,
) -> npt.NDArray[np.intp]:
    count = eligible.size if wanted == ALL else default if wanted is None else int(wanted)
    if eligible.size < count:
        raise DataError(
            f"{eligible.size:,} users have {split} ground truth and enough before it; expected {count:,}: ask for "
            f"fewer with --{split}-users, or for all of them: --{split}-users all"
        )
    drawn = rng.permutation(eligible)
    if roles is not None and wanted != ALL:
        drawn = roles.first_choice(drawn, split)
    return drawn[:count]


def _group_rows(groups: Groups, users: npt.NDArray[np.intp], group: Int64Array) -> Int64Array:
    """Rows `int64[U, 2]` of group `group[u]` of each of some users; -1 for the others."""
    rows = np.full((groups.counts.shape[0], 2), NO_TARGET, np.int64)
    rows[users] = np.stack([groups.starts[group[users]], groups.starts[group[users] + 1]], axis=1)
    return rows


def without_known_targets(split: Split, first: Int64Array, items: Int32Array) -> tuple[Split, dict[str, int]]:
    """Takes the ground truth from users all of whose ground truth items are in their history already.

    Args:
        split: the split.
        first: `int64[U]`, each user's first row.
        items: `int32[R]`, the item of each row.

    Returns:
        The split, and counts: for each of "validation" and "test" the ground truth items that are in the history, and
        the users that have no other.

    Raises:
        DataError: if no user is left of a split that had some.
    """
    targets: dict[str, Int64Array] = {}
    counts: dict[str, int] = {}
    item_count = int(items.max()) + 1
    for name, rows in split.targets.items():
        users = np.flatnonzero(rows[:, 0] != NO_TARGET)
        truth = unique_pairs(items, rows[users, 0], rows[users, 1], item_count)
        new = np.setdiff1d(truth, unique_pairs(items, first[users], rows[users, 0], item_count), assume_unique=True)
        finished = np.setdiff1d(np.arange(users.size), new // item_count)
        if 0 < users.size == finished.size:
            raise DataError(
                f"the {name} ground truth of all {users.size:,} users is in their history, and items of the history "
                "are no answers; keep them with --include-history"
            )
        targets[name] = rows.copy()
        targets[name][users[finished]] = NO_TARGET
        counts |= {f"{name}_items_in_history": truth.size - new.size, f"{name}_users_without_new": finished.size}
    return Split(split.train_end, targets), counts


def like_the_row_before(split: Split, items: Int32Array) -> tuple[int, int]:
    """How many ground truths begin with the item of the row before them, and how many there are."""
    first = np.concatenate([rows[:, 0] for rows in split.targets.values()])
    first = first[first != NO_TARGET]
    return int((items[first] == items[first - 1]).sum()), first.size
