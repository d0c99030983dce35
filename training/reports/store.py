"""Results on disk by a hash of their inputs, so that an interrupted command continues where it stopped."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nann.durable_files import finite, new_file, write_json
from nann.errors import ConfigError

Json = Any
"""A value for `json.dumps`: numbers, strings, None, lists and dicts of them."""


def cached(folder: Path, inputs: Json, compute: Callable[[], Json], *, again: bool = False) -> Json:
    """The result for `inputs`, which are all it depends on: read from the folder, or else computed and written.

    With `again` it is computed even if it is there.
    """
    path = folder / f"{digest(inputs)}.json"
    stored = None if again else _read(path)
    if stored is not None and "result" in stored:
        return stored["result"]
    result = compute()
    write_json(path, {"inputs": inputs, "result": result})
    return json.loads(json.dumps(finite(result)))  # as the next call reads it: lists, and string keys


def cached_array(path: Path, compute: Callable[[], npt.NDArray[Any]]) -> npt.NDArray[Any]:
    """The array in a `.npy` file, which is computed and written first if it is missing."""
    if not path.is_file():
        with new_file(path) as temporary:
            np.save(temporary, compute(), allow_pickle=False)
    array: npt.NDArray[Any] = np.load(path, allow_pickle=False)
    return array


def digest(inputs: Json) -> str:
    """Short hash of a JSON value; the order of keys does not matter."""
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:16]


def read_object(path: Path) -> dict[str, Json]:
    """The JSON object in a file of results; empty if there is no file.

    Raises:
        ConfigError: if the file is not a JSON object.
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
