"""Results on disk, each by a hash of what it depends on: an interrupted command goes on where it stopped."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nann.durable_files import new_file, write_json
from nann.errors import ConfigError

Json = Any
"""What `json.dumps` takes: numbers, strings, None, lists and dicts of them."""


def cached(folder: Path, inputs: Json, compute: Callable[[], Json], *, again: bool = False) -> Json:
    """The result for these inputs: read if it was computed before, else computed and written.

    Args:
        folder: one file a result.
        inputs: everything the result depends on.
        compute: gives the result.
        again: compute it even if it was computed before.
    """
    path = folder / f"{digest(inputs)}.json"
    stored = None if again else _read(path)
    if stored is not None and "result" in stored:
        return stored["result"]
    result = compute()
    write_json(path, {"inputs": inputs, "result": result})
    return json.loads(json.dumps(result))  # as the next call will read it: lists, and string keys


def cached_array(path: Path, compute: Callable[[], npt.NDArray[Any]]) -> npt.NDArray[Any]:
    """The array in a `.npy` file; where there is none it is computed and written first."""
    if not path.is_file():
        with new_file(path) as temporary:
            np.save(temporary, compute(), allow_pickle=False)
    array: npt.NDArray[Any] = np.load(path, allow_pickle=False)
    return array


def digest(inputs: Json) -> str:
    """Short hash of a JSON value; the order of keys does not matter."""
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:16]


def read_object(path: Path) -> dict[str, Json]:
    """The JSON object in a file of results; empty where there is no file.

    Raises:
        ConfigError: if the file is no JSON object.
    """
    if not path.is_file():
        return {}
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(f"{path} is not JSON: {error}; remove it") from error
    if not isinstance(body, dict):
        raise ConfigError(f"{path} holds no JSON object but {type(body).__name__}; remove it")
    return body


def _read(path: Path) -> Json | None:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):  # a damaged result is computed again
        return None
