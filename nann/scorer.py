"""The one thing the search asks of a model: scores of candidates for users."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

Int32Array = npt.NDArray[np.int32]
Float32Array = npt.NDArray[np.float32]


class Scorer(Protocol):
    """s_u(e_v) of the paper, for a batch of users at once.

    Offline evaluation, the oracle and the server differ only in which Scorer they hold: torch, onnxruntime, or a BLS
    call to the model `scorer`.
    """

    def score(self, user_states: Float32Array, candidates: Int32Array) -> Float32Array:
        """Scores every candidate of every user.

        Args:
            user_states: `float32[B, S]`, one row a user, as the user encoder made it.
            candidates: `int32[B, C]` item indices, -1 = padding.

        Returns:
            `float32[B, C]`; larger is better. What stands at padded places is ignored.
        """
        ...
