"""Atomic writes of files and folders, safe in a crash too: written under a temporary name, synced, renamed.

A crash may leave the temporary name behind, hidden, beside the final one. The next write of that name removes it: what
is being written is locked, and what a crash left is not.
"""

from __future__ import annotations

import errno
import fcntl
import json
import math
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from nann.errors import NannError

_OS_ERROR = re.compile(r"os error (\d+)")


@contextmanager
def new_file(path: Path, *, durable: bool = True) -> Iterator[Path]:
    """Yields a temporary path to write a file to, and renames it to `path` at the end, so that no reader sees a part.

    A process that has the old file open, mapped or linked keeps it. If the block raises, `path` does not change.

    Args:
        path: the file; its folder is made.
        durable: sync to disk before and after renaming; False for files that are easily made again.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary(path)
    temporary.touch()
    try:
        with _locked(temporary):
            if durable:
                _clear_leftovers(path)
            with _failed_writes_named(path):
                yield temporary
            if durable:
                _sync(temporary)
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    if durable:
        _sync(path.parent)


def remove_file(path: Path) -> None:
    """Removes a file; a crash does not bring it back."""
    path.unlink()
    _sync(path.parent)


def write_text(path: Path, text: str, *, durable: bool = True) -> None:
    """Writes a whole file as `new_file` does, UTF-8."""
    with new_file(path, durable=durable) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, body: Any, *, durable: bool = True) -> None:
    """Writes a JSON value as `new_file` does, indented for people; NaN and infinity, which JSON lacks, are null."""
    write_text(path, json.dumps(finite(body), indent=2, allow_nan=False) + "\n", durable=durable)


def finite(value: Any) -> Any:
    """A JSON value with null for every number that is not finite."""
    if isinstance(value, Mapping):
        return {key: finite(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yields an empty temporary folder, which replaces `path` at the end.

    If the block raises, `path` does not change. A crash between the two renames leaves the old folder, hidden. A mount
    point can't be renamed: its entries are replaced one by one, and a crash in between leaves some of them.
    """
    path = path.absolute()
    mounted = os.path.ismount(path)
    with scratch_folder(path / path.name if mounted else path) as temporary:
        yield temporary
        sync_tree(temporary)
        if mounted:
            _replace_entries(path, temporary)
        else:
            old = _temporary(path, "old")
            if path.exists():
                os.replace(path, old)
            os.replace(temporary, path)
            _sync(path.parent)
            shutil.rmtree(old, ignore_errors=True)
            _clear_leftovers(path)


@contextmanager
def scratch_folder(path: Path) -> Iterator[Path]:
    """Yields an empty folder beside `path`, on the same file system, and removes it at the end."""
    temporary = _temporary(path)
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        with _locked(temporary):
            _clear_leftovers(path)
            with _failed_writes_named(path):
                yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def entries(folder: Path) -> list[Path]:
    """What a folder holds, without the `lost+found` of a file system of its own."""
    return [path for path in folder.iterdir() if path.name != "lost+found"]


@contextmanager
def _failed_writes_named(path: Path) -> Iterator[None]:
    """Turns what polars, torch and NumPy raise where a write fails into an OSError that names the file or folder."""
    try:
        yield
    except NannError:
        raise
    except Exception as error:
        text = str(error)
        if found := _OS_ERROR.search(text):  # polars
            number = int(found.group(1))
            raise OSError(number, os.strerror(number), str(path)) from error
        if "inline_container" in text or ("requested and" in text and "written" in text):  # torch, NumPy: no reason
            raise OSError(errno.EIO, "can't be written whole; is the disk full?", str(path)) from error
        raise


def link_or_copy(source: Path, target: Path) -> None:
    """Makes `target`, which does not exist: a second name of `source`, or a copy on another file system."""
    try:
        os.link(source.resolve(), target)
    except FileExistsError:
        raise
    except OSError:  # another file system, or one without links
        shutil.copyfile(source, target)


def sync_tree(folder: Path) -> None:
    """Syncs every file and folder below `folder`, and `folder` itself, to disk."""
    for root, _, names in os.walk(folder):
        for name in (*names, "."):
            _sync(Path(root, name))


def _sync(path: Path) -> None:
    """Syncs a file's content, or a folder's list of names, to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _replace_entries(path: Path, temporary: Path) -> None:
    """Replaces all that the folder `path` holds by the entries of `temporary`, which is in it."""
    for entry in entries(path):
        if entry != temporary:
            _remove(entry)
    for entry in temporary.iterdir():
        os.replace(entry, path / entry.name)
    _sync(path)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Locks a file or folder, wherever it is renamed to, as long as this process lives."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def _clear_leftovers(path: Path) -> None:
    """Removes what crashed writes of `path` left beside it; the old content only where there is a new one."""
    kinds = "new|old" if path.exists() else "new"
    name = re.compile(rf"\.\d+\.({kinds})\.{re.escape(path.name)}")
    for other in path.parent.iterdir():
        if name.fullmatch(other.name) is None:
            continue
        with suppress(OSError):  # it is locked, or it went
            descriptor = os.open(other, os.O_RDONLY)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _remove(other)
            finally:
                os.close(descriptor)


def _temporary(path: Path, kind: str = "new") -> Path:
    # The end of the name stays, as writers such as np.save look at the suffix.
    return path.with_name(f".{os.getpid()}.{kind}.{path.name}")
