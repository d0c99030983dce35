"""Checks of a kernel's arguments: dtypes, shapes and contiguity of its arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


def check_at_least(name: str, value: int, least: int) -> None:
    """Checks a number.

    Raises:
        ValueError: if it is below `least`.
    """
    if value < least:
        raise ValueError(f"{name} is {value}; expected at least {least}")


def check(
    name: str,
    array: Any,
    dtype: type[np.generic],
    ndim: int,
    rows: int | None = None,
    writeable: bool = False,
    each: str = "user",
) -> None:
    """Checks one array, which must be C-contiguous.

    Args:
        name: for messages.
        array: anything.
        dtype: the only one that fits.
        ndim: how many dimensions it must have.
        rows: length of its first dimension; None: any.
        writeable: whether it must be possible to change it.
        each: what it has one row for, for messages.

    Raises:
        TypeError: no array, another dtype, not contiguous, or read-only where it is written.
        ValueError: another shape.
    """
    # Messages are formatted only on failure: this runs for every array of every call, and formatting costs more.
    if not isinstance(array, np.ndarray):
        raise TypeError(f"{name} is a {type(array).__name__}; expected a NumPy array {_described(dtype, ndim)}")
    if array.dtype != dtype:
        raise TypeError(f"{name} is {array.dtype}; expected {_described(dtype, ndim)}")
    if array.ndim != ndim:
        raise ValueError(f"{name} has shape {list(array.shape)}; expected {_described(dtype, ndim)}")
    if not array.flags.c_contiguous:
        raise TypeError(f"{name} is not C-contiguous; pass np.ascontiguousarray({name})")
    if writeable and not array.flags.writeable:
        raise TypeError(f"{name} is read-only; expected an array that can be changed in place")
    if rows is not None and len(array) != rows:
        raise ValueError(f"{name} has {len(array)} rows; expected {rows}, one per {each}")


def _described(dtype: type[np.generic], ndim: int) -> str:
    return f"{np.dtype(dtype)}[{ndim} dimensions]"


def check_expansion(
    indptr: npt.NDArray[np.int32],
    neighbors: npt.NDArray[np.int32],
    visited: npt.NDArray[np.uint64],
    frontier: npt.NDArray[np.int32],
    threads: int,
) -> None:
    """Checks what `Kernels.expand` and `Kernels.expand_through` share.

    Raises:
        TypeError: an array of another dtype, or not contiguous, or read-only where it is written.
        ValueError: an array of another shape, or no threads.
    """
    check("indptr", indptr, np.int32, 1)
    check("neighbors", neighbors, np.int32, 1)
    check("visited", visited, np.uint64, 2, writeable=True)
    check("frontier", frontier, np.int32, 2, rows=len(visited))
    if len(indptr) == 0:
        raise ValueError("indptr is empty; expected one value more than items")
    check_at_least("threads", threads, 1)


def check_light(vectors: npt.NDArray[np.float32], users: npt.NDArray[np.float32]) -> None:
    """Checks what a light score multiplies: `float32[N, d]` and `float32[B, d]`.

    Raises:
        TypeError: an array of another dtype, or not contiguous.
        ValueError: an array of another shape.
    """
    check("vectors", vectors, np.float32, 2)
    check("users", users, np.float32, 2)
    if users.shape[1] != vectors.shape[1]:
        raise ValueError(f"users has {users.shape[1]} columns; expected {vectors.shape[1]}, as vectors")
