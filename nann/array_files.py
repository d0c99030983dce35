"""Reading `.npy` and `.npz` files, one header at a time.

NumPy parses a header as Python. Python 3.11 counts the depth of that parsing once for all threads, so that two threads
which do it at the same time can fail with "AST constructor recursion depth mismatch" (github.com/python/cpython,
issue 106905). A server has threads that open arrays: of its catalog, its histories, its filters, its next version.
"""

from __future__ import annotations

from pathlib import Path
from threading import Lock
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from nann.errors import BundleError

_ONE_AT_A_TIME = Lock()


def load_array(path: Path, dtype: type, ndim: int) -> npt.NDArray[Any]:
    """Memory-maps one `.npy` file of a bundle read-only and checks its dtype and rank.

    Raises:
        BundleError: if it can't be read, or is not what was expected.
    """
    try:
        with _ONE_AT_A_TIME:
            # Not np.load: it opens zip archives and pickles too.
            # As a plain array: NumPy runs Python code for each result that it computes from one of its memmap class.
            array: npt.NDArray[Any] = np.lib.format.open_memmap(path, mode="r").view(np.ndarray)
    except Exception as error:  # broken bytes can make NumPy raise anything
        raise BundleError(f"{path} can't be read as a NumPy array: {error}; make the bundle again") from error
    if array.dtype.type is not dtype or not array.dtype.isnative or array.ndim != ndim:
        raise BundleError(
            f"{path} holds {array.dtype}[{array.ndim} dimensions]; expected {dtype.__name__}[{ndim}]; "
            "make the bundle again"
        )
    if not array.flags.c_contiguous:
        raise BundleError(f"{path} is in Fortran order; expected C order; make the bundle again")
    return array


def map_array(path: Path) -> npt.NDArray[Any]:
    """Memory-maps a `.npy` file; what is written to the array is this process's own and never reaches the file.

    Raises:
        OSError: if it is not there.
    """
    with _ONE_AT_A_TIME:
        array: npt.NDArray[Any] = np.lib.format.open_memmap(path, mode="c").view(np.ndarray)
    return array


def read_array(stream: BinaryIO) -> npt.NDArray[Any]:
    """The array of an open `.npy` file.

    Raises:
        ValueError: if it can't be read.
    """
    with _ONE_AT_A_TIME:
        array: npt.NDArray[Any] = np.lib.format.read_array(stream, allow_pickle=False)
    return array


def read_arrays(path: Path) -> dict[str, npt.NDArray[Any]]:
    """All arrays of a `.npz` file by name.

    Raises:
        EOFError, OSError, ValueError, zipfile.BadZipFile: if it can't be read.
    """
    with _ONE_AT_A_TIME, path.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
        return dict(arrays)
