"""A store of histories in a folder: memory-mapped, read in microseconds, replaced as a whole.

manifest.json   kind, format version, limit, and how many users and behaviours there are
user_ids.npy    S[U], ascending
indptr.npy      int64[U + 1]: user u's behaviours are at indptr[u]:indptr[u + 1]
times.npy       int64[E], microseconds since 1970, ascending within a user
item_ids.npy    int64[E], or S[E] of text ids
profiles.npy    int32[U, P], codes of user profiles; only if there are any
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from nann.array_files import load_array
from nann.durable_files import new_folder
from nann.errors import ConfigError, DataError, HistoryError, InvalidInputError
from nann.item_ids import MAX_ID_BYTES, TEXT, Ids, shown

from .events import Events, merged
from .history import HISTORY_LIMIT, UserHistory

KIND = "nann user histories"
FORMAT_VERSION = 1
MANIFEST_FILE = "manifest.json"
_TRIES = 5
_USERS_AT_ONCE = 10_000


@dataclass(frozen=True, eq=False)
class _Content:
    """What is in the folder, mapped into memory; and which manifest says so."""

    file_id: tuple[int, int]
    limit: int
    users: Ids
    indptr: npt.NDArray[np.int64]
    times: npt.NDArray[np.int64]
    items: Ids
    profiles: npt.NDArray[np.int32] | None

    @classmethod
    def open(cls, folder: Path) -> _Content:
        path = folder / MANIFEST_FILE
        try:
            file_id = _file_id(path)
            manifest = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise DataError(
                f"{folder} is no store of histories: {MANIFEST_FILE} can't be read ({error}); make one with `nann "
                "prepare` or `nann events`"
            ) from error
        if not isinstance(manifest, dict) or manifest.get("kind") != KIND:
            raise DataError(
                f"{folder} is no store of histories: its {MANIFEST_FILE} is another kind's; see `nann events`"
            )
        if manifest.get("format_version") != FORMAT_VERSION:
            raise DataError(
                f"{folder} has format version {manifest.get('format_version')}; this release reads {FORMAT_VERSION}: "
                "make it again"
            )
        try:
            users = load_array(folder / "user_ids.npy", np.bytes_, 1)
            indptr, times = (load_array(folder / name, np.int64, 1) for name in ("indptr.npy", "times.npy"))
            items = load_array(folder / "item_ids.npy", np.bytes_ if manifest["text_items"] else np.int64, 1)
            profiles = load_array(folder / "profiles.npy", np.int32, 2) if manifest["profile_fields"] else None
            sizes = (len(users), len(items))
            fits = sizes == (len(indptr) - 1, len(times)) == (manifest["users"], manifest["behaviors"])
            if not fits or indptr[0] != 0 or indptr[-1] != len(items) or (np.diff(indptr) < 0).any():
                raise DataError(f"its arrays have {sizes[0]:,} users and {sizes[1]:,} behaviours, which do not fit")
            if profiles is not None and profiles.shape != (len(users), manifest["profile_fields"]):
                raise DataError(f"profiles.npy has shape {list(profiles.shape)}")
            # A slice of a memmap takes three times as long.
            users, indptr, times, items = map(np.asarray, (users, indptr, times, items))
            return cls(file_id, int(manifest["limit"]), users, indptr, times, items, profiles)
        except (InvalidInputError, OSError, KeyError, TypeError, ValueError) as error:
            what = str(error).removesuffix("; make the bundle again")
            raise DataError(f"{folder} is a damaged store of histories: {what}; make it again") from error


class FileHistories:
    """The histories in a folder.

    A folder that another process replaces is read anew. Readers map the files and copy nothing; a process that has the
    old ones keeps them until then.

    Raises:
        DataError: if the folder is no store of histories, or damaged.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._content = _open(folder)

    @property
    def user_count(self) -> int:
        """The number of users, U."""
        return len(self._content.users)

    @property
    def limit(self) -> int:
        """The most behaviours of a user that are kept."""
        return self._content.limit

    def read(self, user_ids: Sequence[bytes]) -> list[UserHistory | None]:
        """What the store has of each user; None: it does not know the user."""
        self._follow()
        content = self._content
        rows = TEXT.indices(content.users, np.array(user_ids, object)) if len(content.users) else [-1] * len(user_ids)
        return [None if row < 0 else self._history(content, row) for row in rows]

    def append(self, events: Events) -> int:
        """Adds behaviours: writes the whole folder anew, durably; returns how many are new.

        One process at a time may append to a folder: of two, the later one wins.
        """
        self._follow()
        limit, before = self._content.limit, self.events()
        place = {user: row for row, user in enumerate(before.users)}
        touched, added = [], 0
        for user, new in events.each():
            old = before.of(place[user]) if user in place else []
            stored, count = merged(old, new, limit)
            touched.append(stored)
            added += count
        if added or events.profiles is not None:
            write_histories(self._folder, before.replaced(events.of_each(touched)), limit)
            self._content = _open(self._folder)
        return added

    def events(self) -> Events:
        """All that the store has."""
        content = self._content
        return Events(content.users.tolist(), content.indptr, content.times, content.items, content.profiles)

    def close(self) -> None:
        """Nothing to end: the files are unmapped with the object."""

    def _follow(self) -> None:
        try:
            same = _file_id(self._folder / MANIFEST_FILE) == self._content.file_id
        except OSError:  # it is being replaced
            same = True
        if not same:
            try:
                self._content = _open(self._folder)
            except DataError as error:
                raise HistoryError(str(error)) from error

    @staticmethod
    def _history(content: _Content, row: int) -> UserHistory:
        rows = slice(content.indptr[row], content.indptr[row + 1])
        return UserHistory(content.items[rows], None if content.profiles is None else content.profiles[row])


def is_histories(folder: Path) -> bool:
    """Whether a folder is a store of histories, damaged or not."""
    try:
        manifest = json.loads((folder / MANIFEST_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(manifest, dict) and manifest.get("kind") == KIND


def write_histories(folder: Path, events: Events, limit: int = HISTORY_LIMIT, *, durable: bool = True) -> None:
    """Writes a store of histories, in place of another one or in an empty folder.

    Args:
        folder: to write.
        events: of the users in any order; the newest `limit` of each are kept.
        limit: the most behaviours of a user, now and later.
        durable: False inside a folder that is written durably as a whole.

    Raises:
        ConfigError: if the limit is below 1.
        DataError: if `folder` holds anything else, or a user id can't be stored.
    """
    if limit < 1:
        raise ConfigError(f"limit is {limit}; expected at least 1 behaviour for each user")
    for user in events.users:
        if not 0 < len(user) <= MAX_ID_BYTES or b"\0" in user:
            raise DataError(f"a user id is {shown(user)}; expected 1 to {MAX_ID_BYTES} bytes of UTF-8 without NUL")
    if not durable:
        folder.mkdir()
        _write(folder, events, limit)
        return
    if folder.exists() and not is_histories(folder) and (not folder.is_dir() or any(folder.iterdir())):
        raise DataError(f"{folder} exists and is no store of histories; it is left as it is: choose another folder")
    with new_folder(folder) as temporary:
        _write(temporary, events, limit)


def _write(folder: Path, events: Events, limit: int) -> None:
    users = np.array(events.users, np.bytes_) if len(events.users) else np.zeros(0, "S1")
    order = np.argsort(users, kind="stable")
    first, end = events.indptr[:-1][order], events.indptr[1:][order]
    first = np.maximum(first, end - limit)
    counts = end - first
    indptr = np.append(0, np.cumsum(counts)).astype(np.int64)
    np.save(folder / "user_ids.npy", users[order])
    np.save(folder / "indptr.npy", indptr)
    if events.profiles is not None:
        np.save(folder / "profiles.npy", events.profiles[order])
    total = int(indptr[-1])
    for name, values in (("times", events.times), ("item_ids", events.items)):
        path, dtype = folder / f"{name}.npy", values.dtype
        target = np.lib.format.open_memmap(path, "w+", dtype, (total,)) if total else np.zeros(0, dtype)
        for some in range(0, len(order), _USERS_AT_ONCE):  # bounded memory: a log may have billions of rows
            part = slice(some, min(some + _USERS_AT_ONCE, len(order)))
            rows = np.arange(indptr[part.start], indptr[part.stop])
            target[indptr[part.start] : indptr[part.stop]] = values[
                rows + np.repeat(first[part] - indptr[:-1][part], counts[part])
            ]
        if not total:
            np.save(path, target)
    manifest = {
        "kind": KIND,
        "format_version": FORMAT_VERSION,
        "limit": limit,
        "users": len(users),
        "behaviors": total,
        "text_items": events.items.dtype.kind == "S",
        "profile_fields": 0 if events.profiles is None else events.profiles.shape[1],
    }
    (folder / MANIFEST_FILE).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


def _open(folder: Path) -> _Content:
    """The content of one state of the folder, while another process may replace it."""
    for _ in range(_TRIES):
        with contextlib.suppress(DataError, OSError):
            content = _Content.open(folder)
            if _file_id(folder / MANIFEST_FILE) == content.file_id:
                return content
    return _Content.open(folder)


def _file_id(path: Path) -> tuple[int, int]:
    found = os.stat(path)
    return found.st_ino, found.st_mtime_ns
