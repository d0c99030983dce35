"""Behaviours to be stored, and how those of a user join the ones that a store has."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nann.item_ids import Ids

Stored = list[tuple[int, bytes]]
"""Behaviours of one user, oldest first: time in microseconds since 1970, and item id."""
Profiles = npt.NDArray[np.int32] | None


@dataclass(frozen=True, eq=False)
class Events:
    """Behaviours of U users, in a CSR.

    Attributes:
        users: each user once.
        indptr: `int64[U + 1]`, user u's are at `indptr[u]:indptr[u + 1]`, in order of time.
        times: `int64[E]`, microseconds since 1970.
        items: `int64[E]` external ids, or texts, `S[E]`.
        profiles: `int32[U, P]` codes of the users' profiles; None: there are none.
    """

    users: Sequence[bytes]
    indptr: npt.NDArray[np.int64]
    times: npt.NDArray[np.int64]
    items: Ids
    profiles: Profiles = None

    def of(self, row: int) -> Stored:
        """The behaviours of one user."""
        rows = slice(self.indptr[row], self.indptr[row + 1])
        return list(zip(self.times[rows].tolist(), _texts(self.items[rows]).tolist(), strict=True))

    def each(self) -> Iterator[tuple[bytes, Stored]]:
        """Every user and their behaviours."""
        for row, user in enumerate(self.users):
            yield user, self.of(row)

    def some(self, first: int, end: int) -> Events:
        """The users from `first` to before `end`."""
        rows = slice(self.indptr[first], self.indptr[end])
        profiles = None if self.profiles is None else self.profiles[first:end]
        indptr = self.indptr[first : end + 1] - self.indptr[first]
        return Events(self.users[first:end], indptr, self.times[rows], self.items[rows], profiles)

    def take(self, rows: npt.NDArray[np.int64]) -> Events:
        """Some of the users, `int64[R]`."""
        counts = np.diff(self.indptr)[rows]
        indptr = np.append(0, np.cumsum(counts)).astype(np.int64)
        places = np.arange(indptr[-1]) + np.repeat(self.indptr[:-1][rows] - indptr[:-1], counts)
        profiles = None if self.profiles is None else self.profiles[rows]
        return Events([self.users[row] for row in rows], indptr, self.times[places], self.items[places], profiles)

    def of_each(self, stored: Sequence[Stored]) -> Events:
        """The same users with other behaviours."""
        flat = [event for one in stored for event in one]
        texts = [item for _, item in flat]
        numbers = self.items.dtype.kind in "iu" and all(text.isdigit() for text in texts)
        items = np.array(list(map(int, texts)), np.int64) if numbers else np.array(texts, np.bytes_)
        indptr = np.append(0, np.cumsum([len(one) for one in stored])).astype(np.int64)
        return Events(self.users, indptr, np.array([time for time, _ in flat], np.int64), items, self.profiles)

    def replaced(self, others: Events) -> Events:
        """These users, but for those that `others` has, and `others`; these ones' profiles where `others` has none."""
        there = set(others.users)
        kept = self.take(np.array([row for row, user in enumerate(self.users) if user not in there], np.int64))
        items = (kept.items, others.items)
        if items[0].dtype.kind != items[1].dtype.kind:
            items = (_texts(items[0]), _texts(items[1]))
        return Events(
            [*kept.users, *others.users],
            np.concatenate([kept.indptr, others.indptr[1:] + kept.indptr[-1]]),
            np.concatenate([kept.times, others.times]),
            np.concatenate(items),
            self._profiles_of([*kept.users, *others.users], others),
        )

    def _profiles_of(self, users: Sequence[bytes], others: Events) -> Profiles:
        """Codes of users; those of `others` win, and codes of another number of fields are of another data set."""
        found = [(one.users, one.profiles) for one in (self, others) if one.profiles is not None]
        if not found:
            return None
        codes: dict[bytes, npt.NDArray[np.int32]] = {}
        width = found[-1][1].shape[1]
        for of, profiles in found:
            if profiles.shape[1] == width:
                codes |= dict(zip(of, profiles, strict=True))
        return np.array([codes.get(user, np.zeros(width)) for user in users], np.int32).reshape(len(users), width)


NO_EVENTS = Events([], np.zeros(1, np.int64), *(np.zeros(0, np.int64),) * 2)
"""Of no users."""


def _texts(items: Ids) -> Ids:
    return items.astype(np.bytes_) if items.dtype.kind in "iu" else items


def merged(old: Stored, new: Stored, limit: int) -> tuple[Stored, int]:
    """The behaviours that a store has of a user, and new ones: the newest `limit`, in order of time.

    Of equal times the old come first, and the new in their order. A behaviour (time and item) that is there as often
    already is not added again, and neither is one that is not newer than the oldest of a full store. So new ones may
    come in any order, and the same ones any number of times: the second time changes nothing.

    Returns:
        What to store, and how many of the new ones are in it.
    """
    new = new[-limit:]
    if len(old) >= limit:
        new = [event for event in new if event[0] > old[0][0]]
    have = Counter(old) if new and old and new[0][0] <= old[-1][0] else Counter[tuple[int, bytes]]()
    extra = []
    for event in new:
        if have[event] > 0:
            have[event] -= 1
        else:
            extra.append(event)
    if not extra:
        return old, 0
    both = [(event, False) for event in old] + [(event, True) for event in extra]
    newest = sorted(both, key=lambda one: one[0][0])[-limit:]  # stable
    return [event for event, _ in newest], sum(is_new for _, is_new in newest)
