"""Item vectors in two dimensions, for a picture: one linear map, made once for a bundle and kept in a file.

The map shows the directions that keep groups of near items apart (Fisher's discriminant over a rough k-means): the
first two principal components of learned vectors mostly show one cloud.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from nann.durable_files import new_file

Float32Array = npt.NDArray[np.float32]
Int32Array = npt.NDArray[np.int32]

MOST_POINTS = 100_000
"""Points that are drawn; of a larger corpus a sample."""
_SAMPLE = 20_000
_GROUPS, _STEPS = 24, 12
_RIDGE = 1e-3
_EDGE = 0.002
"""The share of items on each side that may lie outside of the picture; they are drawn at its edge."""


@dataclass(frozen=True, eq=False)
class Projection:
    """A picture of N items.

    Attributes:
        matrix: `float32[d, 2]`.
        low, high: `float32[2]`, what is drawn at 0 and at 1 of each axis.
        sample: `int32[P]`, the items that are drawn as the background, ascending.
    """

    matrix: Float32Array
    low: Float32Array
    high: Float32Array
    sample: Int32Array

    @classmethod
    def of(cls, vectors: Float32Array) -> Projection:
        """The projection of `float32[N, d]`; the same vectors give the same one."""
        rng = np.random.default_rng(0)
        count = len(vectors)
        few = np.sort(rng.choice(count, min(count, _SAMPLE), replace=False))
        matrix = _apart(np.asarray(vectors[few], np.float64), rng)
        flat = vectors[few] @ matrix  # [sample, 2]
        low, high = np.quantile(flat, (_EDGE, 1 - _EDGE), axis=0).astype(np.float32)
        drawn = np.sort(rng.choice(count, min(count, MOST_POINTS), replace=False)).astype(np.int32)
        return cls(matrix, low, np.maximum(high, low + 1e-6).astype(np.float32), drawn)

    def points(self, vectors: Float32Array) -> Float32Array:
        """Where `float32[n, d]` are drawn: `float32[n, 2]`, from 0 to 1."""
        flat: Float32Array = (vectors @ self.matrix - self.low) / (self.high - self.low)
        return np.clip(flat, np.float32(0), np.float32(1))

    @classmethod
    def kept(cls, path: Path, vectors: Float32Array) -> Projection:
        """The one in this file; made and written where there is none that fits `float32[N, d]`."""
        try:
            with np.load(path, allow_pickle=False) as arrays:
                found = cls(*(arrays[name] for name in ("matrix", "low", "high", "sample")))
            if found.matrix.shape == (vectors.shape[1], 2) and found.sample[-1] < len(vectors):
                return found
        except (OSError, KeyError, ValueError, BadZipFile):
            pass  # it is made again
        made = cls.of(vectors)
        try:
            with new_file(path, durable=False) as temporary, temporary.open("wb") as file:
                np.savez(file, matrix=made.matrix, low=made.low, high=made.high, sample=made.sample)
        except OSError:
            pass  # where nothing may be written, it is made at each start
        return made


def _apart(vectors: npt.NDArray[np.float64], rng: np.random.Generator) -> Float32Array:
    """`float32[d, 2]`: the two directions in which groups differ most, for how far each spreads; `float64[n, d]`."""
    centred = vectors - vectors.mean(axis=0)
    group = _groups(centred, rng)
    members = np.bincount(group, minlength=_GROUPS).astype(np.float64)
    sums = np.zeros((_GROUPS, centred.shape[1]))
    np.add.at(sums, group, centred)
    centres = sums / np.maximum(members, 1)[:, None]
    within = centred - centres[group]
    spread = within.T @ within / len(centred)
    spread += np.eye(len(spread)) * (_RIDGE * np.trace(spread) / len(spread) + 1e-12)
    between = (centres * members[:, None]).T @ centres / len(centred)
    # Whitened by the spread within groups, the directions are those of an ordinary eigenvalue problem.
    values, axes = np.linalg.eigh(spread)
    white = axes / np.sqrt(values)
    _, directions = np.linalg.eigh(white.T @ between @ white)
    matrix = white @ directions[:, ::-1][:, :2]
    if matrix.shape[1] < 2:
        matrix = np.pad(matrix, ((0, 0), (0, 1)))
    return np.asarray(matrix / np.maximum(np.linalg.norm(matrix, axis=0), 1e-12), np.float32)


def _groups(vectors: npt.NDArray[np.float64], rng: np.random.Generator) -> npt.NDArray[np.intp]:
    """A rough k-means: the group of each of `float64[n, d]`."""
    centres = vectors[rng.choice(len(vectors), min(len(vectors), _GROUPS), replace=False)]
    group = np.zeros(len(vectors), np.intp)
    for _ in range(_STEPS):
        group = np.argmin((centres**2).sum(axis=1) - 2 * vectors @ centres.T, axis=1)
        for place in range(len(centres)):
            own = vectors[group == place]
            centres[place] = own.mean(axis=0) if len(own) else vectors[rng.integers(len(vectors))]
    return group
