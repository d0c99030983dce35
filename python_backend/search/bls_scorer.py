"""The scorer of the online search: one BLS call to the model `scorer` per round."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from nann.errors import ScorerError
from nann.item_rows import ItemRows, candidate_tensor
from nann.scorer import Float32Array, Int32Array, score_in_blocks
from nann.shape_grid import ShapeGrid
from nann.signature import CANDIDATE_ROWS, CANDIDATE_SCORES, SCORER, USER_STATE

from ..tensors import call_model, make_tensor
from .scorer_work import ScorerWork

_LARGEST_ROWS_BYTES = 1 << 26
"""Of the rows in a call without a grid. They cross from process to process in shared memory."""


class BlsScorer:
    """A `nann.scorer.Scorer` for one search, which calls the model `scorer` of the same server.

    Args:
        model_version: version of the graph's bundle, so that graph and scorer are always from the same bundle.
        grid: the only shapes that the scorer is called with; None: any shape, since a CPU gains nothing from padding.
        rows: of the items, which are sent to a scorer without an item table; None: it has one.

    Attributes:
        work: the work done so far.
        trace: Triton's trace that calls belong to; None: they are not traced.
    """

    def __init__(self, model_version: int, grid: ShapeGrid | None = None, rows: ItemRows | None = None) -> None:
        self._model_version = model_version
        self._grid = grid
        self._rows = rows
        self.work = ScorerWork()
        self.trace: Any = None
        self._sent: tuple[Float32Array, Any] | None = None

    def score(self, user_states: Float32Array, candidates: Int32Array) -> Float32Array:
        """Scores every candidate of every user, in one call unless they exceed the grid's largest width, or 64 MB.

        Args:
            user_states: `float32[B, S]`.
            candidates: `int32[B, C]` item indices, -1 = padding.

        Returns:
            `float32[B, C]`, without the padding to the grid.

        Raises:
            ScorerUnavailable: if a call did not reach the scorer.
            ScorerError: if a call failed or returned another shape.
        """
        grid, users = self._grid, len(candidates)
        self.work.add_round(candidates)
        if grid is None:
            if self._rows is None:
                return self._call(self._states_of(user_states), candidates)
            pairs = _LARGEST_ROWS_BYTES // (self._rows.width * CANDIDATE_ROWS.dtype.itemsize)
            return score_in_blocks(
                lambda states, items: self._call(self.states_tensor(states), items), user_states, candidates, pairs
            )
        states = self._states_of(user_states)
        parts = [
            self._call(states, part)[:users, : columns.stop - columns.start]
            for columns, part in grid.padded(candidates)
        ]
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)

    def states_tensor(self, user_states: Float32Array) -> Any:
        """Triton's tensor `user_state` of these users, `float32[B, S]`."""
        return make_tensor(USER_STATE, user_states)

    def _states_of(self, user_states: Float32Array) -> Any:
        """The tensor of these users, padded to the grid; as long as all of a search's users go on, the same one.

        A tensor that was sent is in shared memory, and is not copied there again.
        """
        if self._sent is None or self._sent[0] is not user_states:
            users, rows = len(user_states), user_states
            if self._grid is not None:
                # Padding rows repeat the last user, since any scorer can compute with real numbers of a user.
                rows = user_states[np.minimum(np.arange(self._grid.batch_size(users)), users - 1)]
            self._sent = user_states, self.states_tensor(rows)
        return self._sent[1]

    def _call(self, states: Any, candidates: Int32Array) -> npt.NDArray[Any]:
        self.work.add_call(candidates)
        inputs = [states, make_tensor(*candidate_tensor(candidates, self._rows, shared=True))]
        scores = call_model(SCORER.name, self._model_version, inputs, CANDIDATE_SCORES, self.trace)
        # Checked before padding is cut off, which could make a wrong shape look right.
        if scores.shape != candidates.shape:
            raise ScorerError(f"the scorer returned shape {list(scores.shape)}; expected {list(candidates.shape)}")
        return scores
