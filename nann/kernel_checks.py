"""Checks of a kernel's arguments: dtypes, shapes and contiguity of its arrays."""

from __future__ import annotations

from typing import Any

import numpy as np


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
