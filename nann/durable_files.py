"""Files that are whole or not there, also after a crash: a temporary name, fsync, rename, fsync of the folder."""

from __future__ import annotations

import os
import shutil
from pathlib import Path


def write_text(path: Path, text: str, *, durable: bool = True) -> None:
    """Writes a file at once: readers see the old content or the new one.

    Args:
        path: the file.
        text: its new content.
        durable: hand it to the disk before anything else is done; not for what is made again when it is lost.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            if durable:
                os.fsync(stream.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    if durable:
        sync_folder(path.parent)


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
    synced = set()
    for root, _, names in os.walk(folder):
        for name in names:
            with (Path(root) / name).open("rb") as stream:
                inode = os.fstat(stream.fileno()).st_ino
                if inode not in synced:  # one file may have several names
                    os.fsync(stream.fileno())
                    synced.add(inode)
        sync_folder(Path(root))


def sync_folder(folder: Path) -> None:
    """Hands a folder's list of names to the disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
