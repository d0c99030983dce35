"""Item vectors in two dimensions, for a picture: one map, made once for a bundle and kept in a file.

The first two principal components, and then each axis stretched where many items are: half by rank, half by distance.
Otherwise the few items far out would leave no room to see the others.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from nann.array_files import read_arrays
from nann.durable_files import new_file

Float32Array = npt.NDArray[np.float32]
Int32Array = npt.NDArray[np.int32]

MOST_POINTS = 100_000
"""Points that are drawn; of a larger corpus a sample."""
_SAMPLE = 20_000
_BY_RANK = 0.5
_KNOTS = 65


@dataclass(frozen=True, eq=False)
class Projection:
    """A picture of N items.

    Attributes:
        matrix: `float32[d, 2]`, the principal components.
        stretch: `float32[2, 2, knots]`, for each axis components, ascending, and where they are drawn, from 0 to 1.
        sample: `int32[P]`, the items that are drawn as the background, ascending.
    """

    matrix: Float32Array
    stretch: Float32Array
    sample: Int32Array

    @classmethod
    def of(cls, vectors: Float32Array) -> Projection:
        """The projection of `float32[N, d]`; the same vectors give the same one."""
        rng = np.random.default_rng(0)
        count = len(vectors)
        few = np.asarray(vectors[np.sort(rng.choice(count, min(count, _SAMPLE), replace=False))], np.float64)
        centred = few - few.mean(axis=0)
        axes = np.linalg.eigh(centred.T @ centred)[1][:, ::-1]
        matrix = np.pad(axes, ((0, 0), (0, 1)))[:, :2].astype(np.float32)  # vectors of one number have one component
        stretch = np.stack([_stretch(each) for each in (few @ matrix).T])
        drawn = np.sort(rng.choice(count, min(count, MOST_POINTS), replace=False)).astype(np.int32)
        return cls(matrix, stretch, drawn)

    def points(self, vectors: Float32Array) -> Float32Array:
        """Where `float32[n, d]` are drawn: `float32[n, 2]`, from 0 to 1."""
        flat = (vectors @ self.matrix).T
        drawn = [np.interp(each, *knots) for each, knots in zip(flat, self.stretch, strict=True)]
        return np.asarray(np.stack(drawn, axis=1), np.float32)

    @classmethod
    def kept(cls, path: Path, vectors: Float32Array) -> Projection:
        """The one in this file; made and written where there is none that fits `float32[N, d]`."""
        try:
            arrays = read_arrays(path)
            found = cls(*(arrays[name] for name in ("matrix", "stretch", "sample")))
            if found.matrix.shape == (vectors.shape[1], 2) and found.sample[-1] < len(vectors):
                return found
        except (OSError, EOFError, KeyError, ValueError, BadZipFile):
            pass  # it is made again
        made = cls.of(vectors)
        try:
            with new_file(path, durable=False) as temporary, temporary.open("wb") as file:
                np.savez(file, matrix=made.matrix, stretch=made.stretch, sample=made.sample)
        except OSError:
            pass  # where nothing may be written, it is made at each start
        return made


def _stretch(component: npt.NDArray[np.float64]) -> Float32Array:
    """`float32[2, knots]`: values of one component, ascending, and where they are drawn."""
    shares = np.linspace(0, 1, _KNOTS)
    values = np.quantile(component, shares)
    even = (values - values[0]) / max(values[-1] - values[0], 1e-12)
    return np.asarray(np.stack([values, _BY_RANK * shares + (1 - _BY_RANK) * even]), np.float32)
