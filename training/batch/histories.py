"""The users of a batch job and what they did: from a table, or from a prepared data set."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from nann.errors import DataError
from nann.item_ids import NUMBERS, IdKind, Ids, kind_of_typed, shown

from ..data.csv_rows import TextFormat
from ..data.files import log_files
from ..data.prepared import PreparedData
from ..data.tables import open_table, whole_table

USER, ITEMS = "user", "items"
"""Columns of a table of histories."""
MOST_ITEMS = 10_000
"""Of a history, the newest: the most that a server takes. A model reads far fewer."""


@dataclass(frozen=True, eq=False)
class Histories:
    """U users and their histories.

    Attributes:
        users: the users' ids, Int64 or String, unique.
        indptr: `int64[U + 1]`, user u's items are at `indptr[u]:indptr[u + 1]`.
        item_ids: external ids, oldest first: `int64[R]`, or texts.
        profiles: `int64[U, P]`, codes of the users' profiles; None: there are none.
        profile_fields: what the codes stand for.
    """

    users: pl.Series
    indptr: npt.NDArray[np.int64]
    item_ids: Ids
    profiles: npt.NDArray[np.int64] | None = None
    profile_fields: tuple[Any, ...] = ()

    @classmethod
    def of_data(cls, data: PreparedData, *, profiles: bool = True) -> Histories:
        """All users of a prepared data set, with all that they did, ground truth included."""
        first = np.maximum(data.user_first, data.user_end - MOST_ITEMS)
        lengths = data.user_end - first
        indptr = np.concatenate([[0], np.cumsum(lengths)])
        rows = np.arange(indptr[-1]) + np.repeat(first - indptr[:-1], lengths)
        codes = data.user_profiles.astype(np.int64) if profiles and data.profile_fields else None
        fields = data.profile_fields if codes is not None else ()
        return cls(data.user_ids, indptr, data.item_ids[data.behavior_items[rows]], codes, fields)

    def __len__(self) -> int:
        return len(self.users)

    def __getitem__(self, rows: slice) -> Histories:
        start, end, _ = rows.indices(len(self))
        indptr = self.indptr[start : end + 1]
        return Histories(
            self.users[start:end],
            indptr - indptr[0],
            self.item_ids[indptr[0] : indptr[-1]],
            None if self.profiles is None else self.profiles[start:end],
            self.profile_fields,
        )

    def lists(self) -> list[Ids]:
        """The items of each user."""
        return np.split(self.item_ids, self.indptr[1:-1])

    def padded(self, kind: IdKind) -> Ids:
        """The items as a request has them: `int64[U, L]`, or `object[U, L]` of texts, padded on the left."""
        lists = self.lists()
        rows = np.full((len(lists), max(map(len, lists))), kind.request_padding, kind.dtype)
        for row, items in zip(rows, lists, strict=True):
            row[len(row) - len(items) :] = items
        return rows

    def of_users(self, wanted: Sequence[str]) -> Histories:
        """Those of some users, in this order.

        Raises:
            DataError: for a user without a history, or one that is named twice.
        """
        place = {str(user): row for row, user in enumerate(self.users.to_list())}
        if missing := [user for user in wanted if user not in place]:
            raise DataError(
                f"{len(missing):,} of {len(wanted):,} users have no history, the first is {shown(missing[0])}; leave "
                "them out"
            )
        rows = np.array([place[user] for user in wanted], np.int64)
        lists = self.lists()
        chosen = [lists[row] for row in rows.tolist()]
        return replace(
            self,
            users=_unique(self.users[rows]),
            indptr=np.cumsum([0, *map(len, chosen)]),
            item_ids=np.concatenate([self.item_ids[:0], *chosen]),
            profiles=None if self.profiles is None else self.profiles[rows],
        )

    @cached_property
    def digest(self) -> str:
        """Hash of all of it."""
        digest = hashlib.sha256("\0".join(self.users.cast(pl.String)).encode())
        texts = self.item_ids.dtype == object
        items = "\0".join(self.item_ids.tolist()).encode() if texts else np.ascontiguousarray(self.item_ids).tobytes()
        for part in (self.indptr.tobytes(), items, b"" if self.profiles is None else self.profiles.tobytes()):
            digest.update(part)
        return digest.hexdigest()[:16]


def read_histories(path: Path, kind: IdKind) -> Histories:
    """The users of a Parquet, CSV or JSON lines file with the columns `user` and `items`.

    `items` is a list; in a CSV, ids with commas between them, as `nann query --ids` takes them.

    Args:
        path: a file, or a folder or pattern of several.
        kind: of the item ids.

    Raises:
        DataError: if a file can't be read, lacks a column, or has a user twice or ids of another kind.
    """
    wanted = {USER: "a user's id", ITEMS: "a list of item ids, oldest first"}
    tables = [open_table(file, TextFormat(), wanted, fixed=True) for file in log_files([path])]
    rows = pl.concat([whole_table(table, [USER, ITEMS], "user") for table in tables], how="vertical_relaxed")
    texts = _unique(rows[USER]).cast(pl.String)
    numbers = texts.cast(pl.Int64, strict=False)
    users = numbers if kind_of_typed(texts.to_list()) is NUMBERS and not numbers.null_count() else texts
    lists = [items[-MOST_ITEMS:] for items in _lists(path, rows[ITEMS], kind)]
    flat = np.fromiter(chain.from_iterable(lists), kind.dtype, sum(map(len, lists)))
    return Histories(
        users.cast(pl.Int64) if users.dtype.is_integer() else users, np.cumsum([0, *map(len, lists)]), flat
    )


def read_users(path: Path) -> list[str]:
    """The users that a text file names, one a line.

    Raises:
        DataError: if it can't be read, or names nobody.
    """
    try:
        users = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} can't be read ({error}); expected one user a line, in UTF-8") from error
    if not users:
        raise DataError(f"{path} names no user; expected one a line")
    return users


def _unique(users: pl.Series) -> pl.Series:
    missing = users.is_null() | (users.cast(pl.String) == "").fill_null(False)
    if missing.any():
        raise DataError(f"row {missing.arg_max()} has no {USER}; expected one user a row, each with an id")
    if users.n_unique() != len(users):
        twice = users.filter(users.is_duplicated())[0]
        raise DataError(f"{USER} {shown(twice)} occurs twice; expected each user once, with all items in one list")
    return users


def _lists(path: Path, items: pl.Series, kind: IdKind) -> list[list[Any]]:
    """One list of ids a row."""
    parse: Callable[[str], list[Any]] = lambda text: kind.parse(text) if text else []  # noqa: E731
    try:
        if items.dtype == pl.String:
            return [parse(text) for text in items.fill_null("").to_list()]
        if not isinstance(items.dtype, pl.List):
            raise DataError(f"{path}: {ITEMS} is {items.dtype}; expected lists of item ids")
        texts = items.dtype.inner == pl.String
        if kind is NUMBERS and not texts and not items.dtype.inner.is_integer() and items.dtype.inner != pl.Null:
            raise DataError(f"{path}: {ITEMS} holds {items.dtype}; expected {kind.words}")
        wanted = pl.Int64 if kind is NUMBERS else pl.String
        return list(items.cast(pl.List(wanted)).fill_null([]).list.drop_nulls().to_list())
    except (ValueError, pl.exceptions.PolarsError) as error:
        raise DataError(f"{path}: {ITEMS} can't be read: {error}; expected {kind.words}, as the bundle has") from error
