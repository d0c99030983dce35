"""Files and folders that are whole or not there, also after a crash: written under a temporary name, synced, renamed.

A crash may leave the temporary name behind: hidden, beside the final one.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def new_file(path: Path, *, durable: bool = True) -> Iterator[Path]:
    """Gives a name to write a file to, which takes the name `path` at the end: readers see the old file or the new one.

    Whoever has the old one open, mapped or linked keeps it. If the block raises, `path` stays as it was.

    Args:
        path: the file; its folder is made.
        durable: hand it to the disk before anything else is done; not for what is made again when it is lost.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary(path)
    try:
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
    """Writes a JSON value as `new_file` does, for people to read too."""
    write_text(path, json.dumps(body, indent=2) + "\n", durable=durable)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Gives an empty folder to write to, which takes the name `path` at the end, in place of what is there.

    If the block raises, `path` stays as it was. A crash between two renames, which takes no time, leaves the old folder
    under its hidden name.
    """
    path = path.absolute()
    temporary, old = _temporary(path), _temporary(path, "old")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        sync_tree(temporary)
        if path.exists():
            os.replace(path, old)
        os.replace(temporary, path)
        _sync(path.parent)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def link_or_copy(source: Path, target: Path) -> None:
    """Makes `target`, which does not exist: a second name of `source`, or a copy on another file system."""
    try:
        os.link(source.resolve(), target)
    except FileExistsError:
        raise
    except OSError:  # another file system, or one without links
        shutil.copyfile(source, target)


def sync_tree(folder: Path) -> None:
    """Hands every file and folder below `folder`, itself included, to the disk."""
    for root, _, names in os.walk(folder):
        for name in (*names, "."):
            _sync(Path(root, name))


def _sync(path: Path) -> None:
    """Hands a file's content, or a folder's list of names, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _temporary(path: Path, kind: str = "new") -> Path:
    # What writes a file may read its kind from the end of the name, as np.save does.
    return path.with_name(f".{os.getpid()}.{kind}.{path.name}")
