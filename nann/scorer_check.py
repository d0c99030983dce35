"""What an engine must keep of a scorer's answers: the best items of a few users, with their exact scores.

`nann export` writes it for users of the data set. A server compares its engines on it before it takes one.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from nann.array_files import read_arrays
from nann.errors import BundleError
from nann.scorer import Float32Array, Int32Array
from nann.signature import PADDING_ITEM

SCORER_CHECK_FILE = "scorer.check.npz"
CHECKED_USERS, CHECKED_ITEMS = 16, 1000
TOP_K = 200
MIN_AGREEMENT = 0.99
"""Smallest accepted `ScorerCheck.agreement`."""


@dataclass(frozen=True, eq=False)
class ScorerCheck:
    """Users, and the items that score best for them.

    Attributes:
        user_states: `float32[U, S]`.
        candidates: `int32[U, C]`, the best items of each user and no others, -1 = padding at the end.
        scores: `float32[U, C]`, exact; any where a candidate is padding.
    """

    user_states: Float32Array
    candidates: Int32Array
    scores: Float32Array

    @classmethod
    def load(cls, folder: Path) -> ScorerCheck:
        """Reads the file in a bundle's folder, or in a version folder; its hash is not verified.

        Raises:
            BundleError: if it is damaged.
        """
        path = folder / SCORER_CHECK_FILE
        try:
            arrays = read_arrays(path)
            check = cls(arrays["user_states"], arrays["candidates"], arrays["scores"])
        except (KeyError, ValueError, OSError, EOFError, BadZipFile) as error:
            raise BundleError(f"{path} can't be read: {error}; run `nann export` again") from error
        shapes = [array.shape for array in (check.user_states, check.candidates, check.scores)]
        kinds = [str(array.dtype) for array in (check.user_states, check.candidates, check.scores)]
        if (
            kinds != ["float32", "int32", "float32"]
            or [len(shape) for shape in shapes] != [2, 2, 2]
            or len({len(array) for array in (check.user_states, check.candidates)}) != 1
            or shapes[1] != shapes[2]
        ):
            raise BundleError(f"{path} has {kinds} of shapes {shapes}; run `nann export` again")
        return check

    def save(self, folder: Path) -> str:
        """Writes the file into a bundle's folder; returns its name."""
        arrays = {"user_states": self.user_states, "candidates": self.candidates, "scores": self.scores}
        np.savez(folder / SCORER_CHECK_FILE, **arrays)
        return SCORER_CHECK_FILE

    def agreement(self, scores: Float32Array) -> float:
        """The share of each user's exact top `TOP_K` that `scores`, `float32[U, C]`, have in theirs; the users' mean.

        K is at most a quarter of the user's candidates. Items with the score of the K-th are as good as it. 0 if a
        score is NaN.
        """
        shares = []
        for exact, got, items in zip(self.scores, scores, self.candidates, strict=True):
            known = items != PADDING_ITEM
            count = int(known.sum())
            top_k = min(TOP_K, -(-count // 4))
            if np.isnan(got[known]).any():
                return 0.0
            if top_k:
                worst = np.partition(exact[known], count - top_k)[count - top_k]
                best = np.argpartition(got[known], count - top_k)[count - top_k :]
                shares.append(float(np.mean(exact[known][best] >= worst)))
        return float(np.mean(shares)) if shares else 0.0

    def renumbered(self, old: npt.NDArray[np.int64], count: int) -> ScorerCheck:
        """The same for a corpus in which item i was item `old[i]` of `count`, or another one if that is -1."""
        now = np.full(count, PADDING_ITEM, np.int32)
        kept = np.flatnonzero(old >= 0)
        now[old[kept]] = kept
        candidates = np.where(self.candidates == PADDING_ITEM, PADDING_ITEM, now[self.candidates]).astype(np.int32)
        order = np.argsort(candidates == PADDING_ITEM, axis=1, kind="stable")
        return ScorerCheck(
            self.user_states, np.take_along_axis(candidates, order, 1), np.take_along_axis(self.scores, order, 1)
        )
