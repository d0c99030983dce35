"""Arrays that each process of a server would make from the same files: one makes them, in memory that all share."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nann.array_files import map_array
from nann.durable_files import new_file
from nann.errors import NannError
from nann.found_once import FOLDER_VARIABLE, found_once

Arrays = dict[str, npt.NDArray[Any]]


def shared_arrays(kind: str, key: str, make: Callable[[], Arrays]) -> Arrays:
    """What `make` returns, or what it returned to another process of this server that asked with this kind and key.

    The arrays may be written to: only the process that writes sees it, and takes memory of its own for those pages.
    Where there is no folder of a server, or no room in it, they are all this process's own.

    Args:
        kind: of the arrays. A server keeps the latest of each kind on disk: who uses older ones has them open.
        key: hexadecimal digits that say all that the arrays depend on.
        make: makes them, each with a name.
    """
    made = Arrays()
    if FOLDER_VARIABLE not in os.environ:
        return make()
    folder, name = Path(os.environ[FOLDER_VARIABLE]), f"{kind}-{key}"

    def path(array: str) -> Path:
        return folder / f"{name}.{array}.npy"

    def write() -> str:
        made.update(make())
        _remove_others(folder, kind, name)
        for array, numbers in made.items():
            with new_file(path(array), durable=False) as temporary, temporary.open("wb") as stream:
                np.save(stream, numbers)  # not through a map, which would kill the process where there is no room
        return " ".join(made)

    try:
        return {array: map_array(path(array)) for array in found_once(name, write).split()}
    except (OSError, NannError):  # no room; or a process that starts with another version has removed them
        return made or make()


def _remove_others(folder: Path, kind: str, name: str) -> None:
    for other in folder.glob(f"{kind}-*"):
        if other.name.partition(".")[0] != name:
            with contextlib.suppress(OSError):
                other.unlink()
