"""Atomic writes of files and folders, safe in a crash too: written under a temporary name, synced, renamed.

A crash may leave the temporary name behind, hidden, beside the final one.
"""

from __future__ import annotations

import errno
import json
import math
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
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
    try:
        with _failed_writes_named(path):
            yield temporary
        if durable:
            _sync(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    if durable:
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

    If the block raises, `path` does not change. A crash between the two renames leaves the old folder, hidden.
    """
    path = path.absolute()
    temporary, old = _temporary(path), _temporary(path, "old")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        with _failed_writes_named(path):
            yield temporary
        sync_tree(temporary)
        if path.exists():
            os.replace(path, old)
        os.replace(temporary, path)
        _sync(path.parent)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


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


def _temporary(path: Path, kind: str = "new") -> Path:
    # The end of the name stays, as writers such as np.save look at the suffix.
    return path.with_name(f".{os.getpid()}.{kind}.{path.name}")
