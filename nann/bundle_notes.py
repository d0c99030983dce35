"""Notes about a bundle: what was measured, where it comes from, when it was made. They change no answer.

`notes.json` is beside the manifest. It is not hashed and not part of the bundle's identity: writing a note reads
none of the bundle's files, and a served bundle stays the same version. Older bundles of format version 1 hold the same
keys in the manifest. They are read from there, until a command that changes the manifest moves them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from nann.errors import BundleError
from nann.manifest import require_inside

NOTES_FILE = "notes.json"


def _is_date(value: Any) -> bool:
    try:
        return bool(datetime.fromisoformat(value))
    except (TypeError, ValueError):
        return False


_OBJECT: tuple[str, Callable[[Any], bool]] = ("an object", lambda value: isinstance(value, dict))
_RULES = {
    "created": ("a date and time in ISO 8601", _is_date),
    "tools": _OBJECT,
    "provenance": _OBJECT,
    "reachability": _OBJECT,
    "metrics": _OBJECT,
    "tuning": _OBJECT,
    "baselines": _OBJECT,
    "half_precision": _OBJECT,
}


def without_notes(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The manifest's own keys: those that decide the answers."""
    return {key: value for key, value in manifest.items() if key not in _RULES}


def read_notes(folder: Path, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The notes about the bundle in a folder; empty where there are none.

    Raises:
        BundleError: naming the file, what it holds and what was expected.
    """
    path = folder / NOTES_FILE
    notes = {key: manifest[key] for key in _RULES if key in manifest}
    if path.exists():
        require_inside(path)
        try:
            read = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise BundleError(f"{path} can't be read as JSON: {error}; remove it, no search needs it") from error
        if not isinstance(read, dict):
            raise BundleError(f"{path} is {read!r:.80}; expected a JSON object; remove it, no search needs it")
        notes = notes | read
    for key, (expected, holds) in _RULES.items():
        if key in notes and not holds(notes[key]):
            raise BundleError(
                f"{path}: {key} is {notes[key]!r:.80}; expected {expected}; remove it, no search needs it"
            )
    return notes
