"""Where a prepared data set may be written: a new or empty folder, or in place of another prepared data set."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nann.durable_files import new_folder
from nann.errors import DataError

MANIFEST_FILE = "manifest.json"
KIND = "nann prepared data set"
HISTORIES_FOLDER = "histories"
"""The store of histories in a prepared data set."""


def is_prepared(path: Path) -> bool:
    """Whether the folder has a prepared data set's manifest."""
    try:
        manifest = json.loads((path / MANIFEST_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(manifest, dict) and manifest.get("kind") == KIND


@contextmanager
def prepared_folder(out: Path) -> Iterator[Path]:
    """Gives a folder beside `out` to write to: renamed to `out` on success, deleted on failure.

    Raises:
        DataError: if `out` exists and is neither empty nor a prepared data set.
    """
    _check_replaceable(out)
    with new_folder(out) as folder:
        yield folder
        _check_replaceable(out)


def _check_replaceable(out: Path) -> None:
    if not out.exists() or is_prepared(out):
        return
    if not out.is_dir():
        raise DataError(f"{out} is a file; expected a folder for the prepared data set: choose another --out")
    if any(out.iterdir()):
        raise DataError(f"{out} exists and is no prepared data set; it is left as it is: choose another --out")
