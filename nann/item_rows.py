"""Rows of items, for a scorer that holds no item table: whoever calls it sends the row of each candidate.

A row is what the scorer needs of an item. The rows of a bundle are memory-mapped, so that they may exceed a device's
memory; those of items that came later are a second array.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from nann import _kernels
from nann.kernel_checks import check, check_at_least
from nann.kernels import Float32Array, Int32Array
from nann.signature import CANDIDATE_ROWS, CANDIDATES, TensorSpec
from nann.threads import fitting_threads

_GATHERED_PER_THREAD = 8_000_000
"""Bytes of rows that justify a thread: about 1 ms of work, as its start may take a tenth of that."""


class RowKernel(Protocol):
    """What copies rows: `nann._kernels`, or its specification `nann.kernels_numpy`."""

    def gather_rows(self, base: Float32Array, delta: Float32Array, items: Int32Array, threads: int) -> Float32Array:
        """`ItemRows.gather`, arrays already checked: `float32[B C, R]`."""


@dataclass(frozen=True, eq=False)
class ItemRows:
    """The rows of all items. It never changes, so threads may share it.

    Attributes:
        base: `float32[N, R]`, items 0..N-1; may be mapped read-only.
        delta: `float32[D, R]`, items that came after the bundle was made.
        first: the index of the first of them, at least N; None: N. The places between are nobody's.

    Raises:
        TypeError: an array of another dtype, or not contiguous.
        ValueError: an array of another shape.
    """

    base: Float32Array
    delta: Float32Array = field(default_factory=lambda: np.empty((0, 0), np.float32))
    first: int | None = None

    def __post_init__(self) -> None:
        check("base", self.base, np.float32, 2)
        if self.delta.size == 0:
            object.__setattr__(self, "delta", np.empty((0, self.width), np.float32))
        check("delta", self.delta, np.float32, 2)
        if self.delta.shape[1] != self.width:
            raise ValueError(f"delta has {self.delta.shape[1]} columns; expected {self.width}, as base")

    @property
    def width(self) -> int:
        """R."""
        return int(self.base.shape[1])

    def gather(self, items: Int32Array, threads: int = 1, kernel: RowKernel = _kernels) -> Float32Array:
        """The row of each item.

        Args:
            items: `int32[B, C]`, -1 = padding.
            threads: how many threads share the items.
            kernel: what copies.

        Returns:
            `float32[B, C, R]`; zeros where an item is -1.

        Raises:
            TypeError: `items` of another dtype, or not contiguous.
            ValueError: `items` of another shape.
            IndexError: an item of N + D or more, or below -1.
        """
        check("items", items, np.int32, 2)
        check_at_least("threads", threads, 1)
        if self.first is not None:
            items = np.where(items >= self.first, items - np.int32(self.first - len(self.base)), items)
        return kernel.gather_rows(self.base, self.delta, items, threads).reshape(*items.shape, self.width)


def candidate_tensor(
    candidates: Int32Array, rows: ItemRows | None, *, shared: bool = False
) -> tuple[TensorSpec, npt.NDArray[Any]]:
    """What a scorer reads of `candidates` (`int32[B, C]`): themselves, or their rows.

    Args:
        candidates: items to score, -1 = padding.
        rows: of the items, for a scorer without an item table; None: it has one.
        shared: whether several threads may share the gathering of a large call.

    Returns:
        The tensor's spec, `CANDIDATES` or `CANDIDATE_ROWS`, and its value.
    """
    if rows is None:
        return CANDIDATES, candidates
    candidates = np.ascontiguousarray(candidates)
    wanted = candidates.size * rows.width * CANDIDATE_ROWS.dtype.itemsize // _GATHERED_PER_THREAD
    threads = fitting_threads(wanted) if shared else 1
    return CANDIDATE_ROWS, rows.gather(candidates, threads)
