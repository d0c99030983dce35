"""Light vectors in eight bits: a scan of them is several times as fast, as memory is what it waits for.

    <w_u, x_v>  ~  step * <a_u, c_v>,   c_v = round(x_v / s) in int8,  a_u = round(w_u * s / step) in int16

s has one number per column, so that a column with larger numbers than the others (a bias) does not coarsen them. Rows
are filled up to whole vector registers; of narrow vectors (a popularity alone) the room holds what rounding left. A
scan chooses items by this, and tells about their light scores.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from nann.kernels import Float32Array, Int8Array, Int16Array
from nann.shared_arrays import shared_arrays

_ALIGNED = 16
"""Rows have a multiple of this many codes, so that the kernel has whole vector registers."""
_LARGEST_CODE = 127
_FINER = 2 * _LARGEST_CODE
"""How much finer the second code of a number is: the first leaves at most half a step."""
_BLOCK_ITEMS = 1 << 12
"""A block of 64 numbers an item and what is made of it stay in the core's cache."""


@dataclass(frozen=True, eq=False)
class LightCodes:
    """The codes of N light vectors of d numbers.

    Attributes:
        codes: `int8[N, D]`, D >= d.
        scales: `float32[C]`, s, one for each column of `codes` but padding: C = d, or 2 d where there is room.
        width: d.
    """

    codes: Int8Array
    scales: Float32Array
    width: int

    @classmethod
    def of(cls, vectors: Float32Array, room: int = 0) -> LightCodes:
        """Those of `float32[N, d]`, all finite, and behind them codes of `room` zeros, which may be written later."""
        width = vectors.shape[1]
        largest = np.zeros(width, np.float32)
        for start in range(0, len(vectors), _BLOCK_ITEMS):
            block = vectors[start : start + _BLOCK_ITEMS]
            largest = np.maximum(largest, np.maximum(block.max(axis=0), -block.min(axis=0)))
        first = np.where(largest > 0, largest / _LARGEST_CODE, 1).astype(np.float32)
        levels = [first, first / _FINER] if 2 * width <= _ALIGNED else [first]
        codes = np.zeros((len(vectors) + room, -(-width // _ALIGNED) * _ALIGNED), np.int8)
        made = cls(codes, np.concatenate(levels), width)
        made.write(0, vectors)
        return made

    @classmethod
    def shared(cls, vectors: Float32Array, room: int, key: str) -> LightCodes:
        """`of` these, in memory that the processes of a server share; `key` is the hash of the vectors' file."""

        def make() -> dict[str, npt.NDArray[Any]]:
            made = cls.of(vectors, room)
            return {"codes": made.codes, "scales": made.scales}

        return cls(**shared_arrays("light-codes", f"{key}-{room}", make), width=vectors.shape[1])

    def write(self, start: int, vectors: Float32Array) -> None:
        """Makes the codes from row `start` on those of `float32[X, d]`; numbers beyond the scales' reach are cut."""
        levels = self.scales.reshape(-1, self.width)
        for first in range(0, len(vectors), _BLOCK_ITEMS):
            left = vectors[first : first + _BLOCK_ITEMS]
            rows = slice(start + first, start + first + len(left))
            for level, scales in enumerate(levels):
                found = left / scales
                np.clip(np.rint(found, out=found), -_LARGEST_CODE, _LARGEST_CODE, out=found)
                self.codes[rows, level * self.width : (level + 1) * self.width] = found
                if level + 1 < len(levels):
                    left = left - found * scales

    def of_users(self, users: Float32Array) -> tuple[Int16Array, npt.NDArray[np.float64]]:
        """a_u of `float32[B, d]`, all finite, as `int16[B, D]`, and `float64[B]`, step.

        No sum of products with a row of `codes` exceeds int32.
        """
        levels = self.scales.reshape(-1, self.width).astype(np.float64)
        scaled = (users[:, None] * levels).reshape(len(users), self.scales.size)
        most = min(np.iinfo(np.int16).max, np.iinfo(np.int32).max // (_LARGEST_CODE * max(self.codes.shape[1], 1)))
        largest = np.abs(scaled).max(axis=1, initial=0)
        steps = np.where(largest > 0, largest / most, 1)
        codes = np.zeros((len(users), self.codes.shape[1]), np.int16)
        codes[:, : scaled.shape[1]] = np.rint(scaled / steps[:, None])
        return codes, steps
