"""ALS: matrix factorization of implicit feedback (Hu, Koren and Volinsky 2008), by the package `implicit`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from nann.scorer import Float32Array, Int32Array

from ..data.prepared import PreparedData
from .baseline import history_matrix, known_interactions, rank_by_scores
from .plain import Popular

_FACTORS, _ALPHA, _REGULARIZATION, _ITERATIONS, _SEED = 128, 20.0, 0.05, 15, 0


@dataclass(frozen=True)
class Als:
    """Inner products of user and item factors; a user's are computed from the history alone, as for a new user.

    Attributes:
        model: implicit's, fitted.
        popular: what a user without history gets.
    """

    model: Any
    popular: Popular

    @classmethod
    def fit(cls, data: PreparedData) -> Als:
        """Factorizes how often users met items.

        Raises:
            ModuleNotFoundError: if `implicit` is not installed.
        """
        from implicit.cpu.als import AlternatingLeastSquares
        from threadpoolctl import threadpool_limits

        # implicit shares the users among threads itself; BLAS with its own threads as well takes many times as long.
        with threadpool_limits(1, "blas"):
            model = AlternatingLeastSquares(
                _FACTORS, _REGULARIZATION, _ALPHA, iterations=_ITERATIONS, random_state=_SEED
            )
            model.fit(known_interactions(data), show_progress=False)
        return cls(model, Popular.fit(data))

    def rank(self, behaviors: Int32Array, top_k: int) -> Int32Array:
        """See `baseline.Baseline`."""
        from threadpoolctl import threadpool_limits

        items = self.model.item_factors
        history = history_matrix(behaviors, len(items))
        with threadpool_limits(1, "blas"):
            users: Float32Array = self.model.recalculate_user(np.arange(len(behaviors)), history)
        without_history = np.diff(history.indptr) == 0
        popular = -self.popular.positions.astype(np.float32)

        def score(block: slice) -> Float32Array:
            scores: Float32Array = users[block] @ items.T
            scores[without_history[block]] = popular
            return scores

        return rank_by_scores(score, len(behaviors), len(items), top_k)
