"""A prepared data set as arrays: contexts and groups for training, queries with ground truth for evaluation."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from nann.errors import DataError
from nann.item_ids import NUMBERS, TEXT, IdKind, Ids, kind_of
from nann.signature import PADDING_ITEM

from .item_attributes import ItemAttributes
from .output_folder import KIND, MANIFEST_FILE
from .prepare import ATTRIBUTES_FILE, BEHAVIORS_FILE, CATEGORIES_FILE, FORMAT_VERSION, ITEMS_FILE, USERS_FILE
from .protocol import NO_TARGET, TARGETS
from .row_ranges import rows_before, to_csr, unique_pairs

_QUERY_ORDER_SEED = 0


@dataclass(frozen=True)
class Queries:
    """Users to predict for, and their ground truth.

    Attributes:
        behaviors: `int32[Q, length]` item indices, oldest first, padded on the left with -1.
        external_ids: `[Q, length]`, the same as external ids: int64 padded with 0, or texts (object) padded with "".
        profiles: `int32[Q, max(P, 1)]` user profile codes; a column of zeros without profile fields.
        target_indptr: `int64[Q + 1]`, query q's ground truth is at `target_indptr[q]:target_indptr[q + 1]`.
        target_items: `int32[T]` item indices, ascending and unique within a query.
        users: `int32[Q]` user indices.
        excluded_indptr: `int64[Q + 1]`, query q's are at `excluded_indptr[q]:excluded_indptr[q + 1]`.
        excluded_items: `int32[E]` item indices that are no answers, ascending and unique within a query: all items of
            the user's history before the ground truth if the data set excludes history, else none.
    """

    behaviors: npt.NDArray[np.int32]
    external_ids: Ids
    profiles: npt.NDArray[np.int32]
    target_indptr: npt.NDArray[np.int64]
    target_items: npt.NDArray[np.int32]
    users: npt.NDArray[np.int32]
    excluded_indptr: npt.NDArray[np.int64]
    excluded_items: npt.NDArray[np.int32]

    def targets_of(self, query: int) -> npt.NDArray[np.int32]:
        """Ground truth of one query, `int32[n]` item indices."""
        return self.target_items[self.target_indptr[query] : self.target_indptr[query + 1]]

    def take(self, rows: npt.NDArray[np.intp]) -> Queries:
        """The queries of some rows, `intp[R]`, at least one."""
        targets = _taken(self.target_indptr, self.target_items, rows)
        excluded = _taken(self.excluded_indptr, self.excluded_items, rows)
        behaviors, external_ids, profiles = self.behaviors[rows], self.external_ids[rows], self.profiles[rows]
        return Queries(behaviors, external_ids, profiles, *targets, self.users[rows], *excluded)


@dataclass(frozen=True)
class PreparedData:
    """A prepared data set: N items, R behaviours sorted by user and time, U users, P user profile fields.

    A group is a basket, or one behaviour if the log has no baskets.

    Attributes:
        item_ids: `int64[N]`, or `S[N]` of text ids, ascending: item index -> external id.
        item_categories: `int32[N]`, places in `category_labels`.
        category_labels: what the log calls the categories, unique.
        item_attributes: codes of each item's attributes; None without a table of items.
        train_counts: `int64[N]`, occurrences of each item in the training rows.
        item_names: one name per item, "" for an item without; None if the log has no names.
        behavior_items: `int32[R]` item indices.
        behavior_group_first: `int64[R]`, the first row of each row's group.
        user_ids: the users' own ids, Int64 or String, one per user.
        user_first, user_end: `int64[U]`, each user's first row and the row after the last.
        user_train_end: `int64[U]`: the rows from `user_first` to before it are training data; equal to `user_first`
            for a user that does not train.
        user_targets: for "validation" and "test" `int64[U, 2]`, the ground truth's first row and the row after its
            last; -1 for a user without.
        excludes_history: items of a user's history are never the answer, and not part of the ground truth.
        user_profiles: `int32[U, P]` codes; 0 = unknown.
        profile_fields: `{"name": ..., "values": [...]}` per field; code i + 1 stands for `values[i]`.
        attributes: the items' attributes as they are, for filters: one row an item, one column an attribute; None
            without any.
        item_rows: `int64[N]`, the row of each item in `items.parquet`. Appended items are the last rows there: a model
            of the data set when it had n items knows those with a row below n, in this order.
    """

    item_ids: Ids
    item_categories: npt.NDArray[np.int32]
    category_labels: tuple[str, ...]
    item_attributes: ItemAttributes | None
    train_counts: npt.NDArray[np.int64]
    item_names: list[str] | None
    behavior_items: npt.NDArray[np.int32]
    behavior_group_first: npt.NDArray[np.int64]
    user_ids: pl.Series
    user_first: npt.NDArray[np.int64]
    user_end: npt.NDArray[np.int64]
    user_train_end: npt.NDArray[np.int64]
    user_targets: Mapping[str, npt.NDArray[np.int64]]
    excludes_history: bool
    user_profiles: npt.NDArray[np.int32]
    profile_fields: tuple[Mapping[str, Any], ...]
    manifest: Mapping[str, Any]
    item_rows: npt.NDArray[np.int64]
    attributes: pl.DataFrame | None = None

    @classmethod
    def load(cls, path: Path | str) -> PreparedData:
        """Reads the folder that `nann prepare` wrote.

        Raises:
            DataError: if it is not a prepared data set, has another format version, or is incomplete.
        """
        path = Path(path)
        manifest = read_manifest(path)
        items = _read(path, ITEMS_FILE).with_row_index("row").sort("item_id")
        rows = items["row"].to_numpy()
        item_of_row = np.empty(len(rows), np.int32)
        item_of_row[rows] = np.arange(len(rows), dtype=np.int32)
        behaviors = _read(path, BEHAVIORS_FILE, ["item", "group_first"])
        users = _read(path, USERS_FILE)
        counts = manifest["counts"]
        for name, frame in (("items", items), ("behaviors", behaviors), ("users", users)):
            if frame.height != counts[name]:
                raise DataError(
                    f"{path} has {frame.height:,} {name} and its manifest says {counts[name]:,}; prepare it again"
                )
        fields, attributes = tuple(manifest["profile_fields"]), manifest["item_attributes"]
        return cls(
            item_ids=_item_ids(items["item_id"]),
            item_categories=_array(items, "category", np.int32),
            category_labels=tuple(_read(path, CATEGORIES_FILE)["label"]),
            item_attributes=ItemAttributes.of(items["attributes"], attributes) if attributes else None,
            train_counts=_array(items, "train_count", np.int64),
            item_names=None if items["name"].is_null().all() else items["name"].fill_null("").to_list(),
            behavior_items=item_of_row[_array(behaviors, "item", np.int32)],
            behavior_group_first=_array(behaviors, "group_first", np.int64),
            user_ids=users["user_id"],
            user_first=_array(users, "first", np.int64),
            user_end=_array(users, "end", np.int64),
            user_train_end=_array(users, "train_end", np.int64),
            user_targets={name: _target_rows(users, name) for name in TARGETS},
            excludes_history=manifest["protocol"]["exclude_history"],
            user_profiles=_profiles(users, len(fields)),
            profile_fields=fields,
            manifest=manifest,
            attributes=_read(path, ATTRIBUTES_FILE)[rows] if (path / ATTRIBUTES_FILE).exists() else None,
            item_rows=rows.astype(np.int64),
        )

    @property
    def item_count(self) -> int:
        """The number of items, N."""
        return int(self.item_ids.shape[0])

    @property
    def category_count(self) -> int:
        """The number of categories."""
        return len(self.category_labels)

    @property
    def id_kind(self) -> IdKind:
        """Whether the items' ids are numbers or text."""
        return kind_of(self.item_ids)

    @property
    def describes_items(self) -> bool:
        """Whether items have more than ids: categories or attributes."""
        return self.category_count > 1 or self.item_attributes is not None

    @property
    def user_count(self) -> int:
        """The number of users, U."""
        return int(self.user_first.shape[0])

    @cached_property
    def identity(self) -> str:
        """Short hash of all that training reads: items, the users that train and their training rows.

        The same identity means the same training rows, and so that no ground truth of this data set is among them.
        """
        trains = self.user_train_end > self.user_first
        rows = rows_before(self.user_first, self.user_train_end, self.user_end)
        users = self.user_ids.filter(pl.Series(trains))
        arrays: list[npt.NDArray[Any]] = [
            self.item_ids,
            self.item_categories,
            (self.user_train_end - self.user_first)[trains],
        ]
        arrays += [self.behavior_items[rows], self.user_profiles[trains]]
        if self.item_attributes is not None:
            arrays += [self.item_attributes.indptr, self.item_attributes.codes]
        digest = hashlib.sha256("\n".join(users.cast(pl.String)).encode())
        for array in arrays:
            digest.update(repr((array.shape, array.dtype.str)).encode())
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()[:16]

    def contexts(
        self, rows_first: npt.NDArray[np.int64], rows_end: npt.NDArray[np.int64], length: int
    ) -> npt.NDArray[np.int32]:
        """The last `length` behaviours of n row ranges, as item indices `int32[n, length]`.

        A range begins at `rows_first`, `int64[n]`, and ends before `rows_end`, `int64[n]`. Oldest first, padded on the
        left with -1.
        """
        rows = rows_end[:, None] + np.arange(-length, 0)  # [n, length]
        inside = rows >= rows_first[:, None]
        items = self.behavior_items[np.where(inside, rows, 0)]
        return np.where(inside, items, np.int32(PADDING_ITEM))

    def training_groups(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int32]]:
        """The groups of training rows with an earlier group as context, `contexts(user_first[user], first, length)`.

        Returns:
            `int64[G]` first rows, ascending, `int64[G]` the row after each group's last, and `int32[G]` the users.
        """
        users = np.repeat(np.arange(self.user_count, dtype=np.int32), self.user_end - self.user_first)  # [R]
        # A user's first row begins a group, so rows of every other group have a context.
        trains = rows_before(self.user_first, self.user_train_end, self.user_end)
        usable = trains & (self.behavior_group_first > self.user_first[users])
        first, sizes = np.unique(self.behavior_group_first[usable], return_counts=True)
        return first, first + sizes, users[first]

    def queries(self, split: str, length: int, limit: int | None = None) -> Queries:
        """The last `length` behaviours and the ground truth of users of a split, "validation" or "test".

        `limit` takes the first so many. The order is random and always the same: a limit gives a random sample, and a
        smaller limit a part of the same sample.

        Raises:
            DataError: for another split, a limit below 1, or a split without users.
        """
        users = self._query_users(split, limit)
        first, rows = self.user_first[users], self.user_targets[split][users]
        behaviors = self.contexts(first, rows[:, 0], length)
        external_ids = self.id_kind.external(self.item_ids, behaviors, self.id_kind.request_padding)
        targets = unique_pairs(self.behavior_items, rows[:, 0], rows[:, 1], self.item_count)
        excluded = np.zeros(0, np.int64)
        if self.excludes_history:
            excluded = unique_pairs(self.behavior_items, first, rows[:, 0], self.item_count)
            targets = np.setdiff1d(targets, excluded, assume_unique=True)
        truth, left_out = (to_csr(pairs, len(users), self.item_count) for pairs in (targets, excluded))
        profiles = self.user_profiles[users] if self.profile_fields else np.zeros((users.shape[0], 1), np.int32)
        return Queries(behaviors, external_ids, profiles, *truth, users, *left_out)

    def target_users(self, split: str) -> npt.NDArray[np.int32]:
        """Users with ground truth of a split, "validation" or "test", `int32[n]`, ascending.

        Raises:
            DataError: for another split.
        """
        if split not in TARGETS:
            raise DataError(f"split is {split!r}; expected 'validation' or 'test': training data has no ground truth")
        return np.flatnonzero(self.user_targets[split][:, 0] != NO_TARGET).astype(np.int32)

    def _query_users(self, split: str, limit: int | None) -> npt.NDArray[np.int32]:
        users = self.target_users(split)
        if limit is not None and limit < 1:
            raise DataError(f"limit is {limit}; expected at least 1, or none for all users")
        if not users.size:
            raise DataError(f"the data set has no {split} users; prepare it again with --{split}-users")
        return np.random.default_rng(_QUERY_ORDER_SEED).permutation(users)[:limit]


def read_manifest(path: Path) -> Mapping[str, Any]:
    """The manifest of a prepared data set.

    Raises:
        DataError: if there is none, or it has another kind or format version.
    """
    try:
        manifest = json.loads((path / MANIFEST_FILE).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(f"{path} is no prepared data set: no {MANIFEST_FILE}; make one with `nann prepare`") from error
    except (OSError, ValueError) as error:
        raise DataError(f"{path / MANIFEST_FILE} can't be read ({error}); prepare the data set again") from error
    if not isinstance(manifest, dict) or manifest.get("kind") != KIND:
        raise DataError(f"{path} is no prepared data set: its {MANIFEST_FILE} is another kind's; see `nann prepare`")
    version = manifest.get("format_version")
    if version != FORMAT_VERSION:
        raise DataError(f"{path} has format version {version}; this release reads {FORMAT_VERSION}: prepare it again")
    return manifest


def _read(path: Path, name: str, columns: list[str] | None = None) -> pl.DataFrame:
    try:
        return pl.read_parquet(path / name, columns=columns)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DataError(f"{path / name} is missing or damaged; prepare the data set again") from error


def _array(frame: pl.DataFrame, column: str, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    return np.ascontiguousarray(frame[column].to_numpy(), dtype=dtype)


def _item_ids(ids: pl.Series) -> Ids:
    return TEXT.stored(ids.to_list()) if ids.dtype == pl.String else NUMBERS.stored(ids.to_numpy())


def _target_rows(users: pl.DataFrame, split: str) -> npt.NDArray[np.int64]:
    return np.stack([_array(users, f"{split}_{side}", np.int64) for side in ("first", "end")], axis=1)


def _taken(
    indptr: npt.NDArray[np.int64], items: npt.NDArray[np.int32], rows: npt.NDArray[np.intp]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int32]]:
    """Some rows of a CSR, as CSR."""
    parts = [items[indptr[row] : indptr[row + 1]] for row in rows]
    return np.cumsum([0, *map(len, parts)]), np.concatenate(parts)


def _profiles(users: pl.DataFrame, count: int) -> npt.NDArray[np.int32]:
    columns = [_array(users, f"profile_{i}", np.int32) for i in range(count)]
    return np.stack(columns, axis=1) if columns else np.zeros((users.height, 0), np.int32)
