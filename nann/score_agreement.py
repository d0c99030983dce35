"""How well two versions of the same scores agree, whatever their scale and however many are masked."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nann.scorer import Float32Array

TOLERANCE = 1e-4
"""Largest accepted error of a score in float32, see `Agreement`."""
MIN_ORDER = 0.95
"""Smallest accepted share of pairs in the same order."""

_SMALL, _OUTLIER = 0.05, 1e4
"""Scores beyond this multiple of the small ones (their 5% quantile) are masks or boosts, and not typical."""
_SAME = 1e-6
"""Scores closer than this share of a typical one have no order: float32 has 7 digits."""
_ORDERED = 256
"""How many candidates of a user are compared in pairs."""


@dataclass(frozen=True)
class Agreement:
    """How well scores agree with the expected ones.

    Attributes:
        error: the largest difference of two scores, relative to the expected one, or to a typical one if that is
            larger. Not finite where an infinite score (a masked item) is another one, or a score is NaN.
        order: the smallest share, over the users, of pairs of candidates in the same order. Where all scores share a
            large constant, a small `error` says nothing and the order does.
    """

    error: float
    order: float = 1.0

    @classmethod
    def of(cls, scores: Float32Array, expected: Float32Array, typical: float | None = None) -> Agreement:
        """Compares `float32[B, C]` with `float32[B, C]`; `typical` is by default the `typical_score` of `expected`."""
        typical = typical_score(expected) if typical is None else typical
        with np.errstate(invalid="ignore", over="ignore"):
            apart = np.abs(scores.astype(np.float64) - expected)
        apart[scores == expected] = 0  # infinite ones
        size = np.where(np.isfinite(expected), np.maximum(np.abs(expected), typical), 1)
        error = np.divide(apart, size, out=np.full_like(apart, np.inf), where=size > 0)
        error[apart == 0] = 0
        return cls(float(error.max()), min(map(_order, scores, expected, [typical] * len(expected)), default=1.0))

    def holds(self, tolerance: float = TOLERANCE) -> bool:
        """Whether both numbers are acceptable."""
        return self.error <= tolerance and self.order >= MIN_ORDER

    def joined(self, other: Agreement) -> Agreement:
        """The worse of both numbers."""
        return Agreement(max(self.error, other.error), min(self.order, other.order))

    def __str__(self) -> str:
        return f"by {self.error:.2e} of a score, and {self.order:.0%} of the candidates' pairs are in the same order"


def typical_score(scores: Float32Array) -> float:
    """The median size of the scores that are neither 0 nor masked; 0 if there are none."""
    sizes = np.abs(scores[np.isfinite(scores) & (scores != 0)])
    if not sizes.size:
        return 0.0
    return float(np.median(sizes[sizes <= _OUTLIER * np.quantile(sizes, _SMALL)]))


def _order(scores: Float32Array, expected: Float32Array, typical: float) -> float:
    """The share of pairs of `float32[C]` in the expected order, of those that have one."""
    got, wanted = (each[:_ORDERED].astype(np.float64) for each in (scores, expected))
    with np.errstate(invalid="ignore"):  # two infinite ones have no order
        above = wanted[:, None] - wanted > _SAME * typical  # [C, C]
        kept = above & (got[:, None] >= got)
    return float(kept.sum() / above.sum()) if above.any() else 1.0
