"""The model `beam_retrieval` of the target `torch`: user states stay on the GPU for the whole search.

The search reads only the last few numbers of a user state, for the light score, and passes the state to the scorer. So
here it gets a row number and those few numbers per user, and the scorer selects the rows of the states on their device.
Nothing else of a state is copied to the host between user_encoder and scorer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from nann.errors import ConfigError, RequestError
from nann.item_rows import ItemRows
from nann.scorer import Float32Array
from nann.shape_grid import ShapeGrid
from nann.signature import USER_STATE

from ..engines.device_tensors import read_torch, torch_tensor
from ..search.bls_scorer import BlsScorer
from . import beam_retrieval


class DeviceBlsScorer(BlsScorer):
    """A `BlsScorer` whose `user_states` begin with a row number, `float32[B, 1 + light width]`.

    Args:
        states: `float32[users, S]` on any device: the rows that the numbers refer to.
        model_version: as in `BlsScorer`, and so are `grid` and `rows`.
    """

    def __init__(self, states: Tensor, model_version: int, grid: ShapeGrid | None, rows: ItemRows | None) -> None:
        super().__init__(model_version, grid, rows)
        self._states = states

    def states_tensor(self, user_states: Float32Array) -> Any:
        """Triton's tensor `user_state` of these rows, on the device."""
        rows = torch.from_numpy(user_states[:, 0].astype(np.int64)).to(self._states.device)
        return torch_tensor(USER_STATE, self._states.index_select(0, rows))


class TritonPythonModel(beam_retrieval.TritonPythonModel):
    """Triton's view of the search, with user states on their device."""

    def initialize(self, args: Mapping[str, str]) -> None:
        """Same as in the other targets."""
        super().initialize(args)
        if self.in_process is not None:
            raise ConfigError(
                "config.pbtxt of beam_retrieval: parameter scorer is 'in_process'; expected 'bls', since user states "
                "stay on the GPU with the target torch"
            )

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Same as in the other targets."""
        self._states: list[Tensor] = []
        try:
            return super().execute(requests)
        finally:
            self._states.clear()  # Triton owns the memory and reuses it once the requests are answered

    def read_states(self, request: Any) -> npt.NDArray[Any]:
        """Reads the user states and leaves them on their device.

        Returns:
            `float32[B, 1 + light width]`: row numbers (exact below 2^24) and w_u of the light score.
        """
        states = read_torch(request, USER_STATE)
        if states.ndim != 2 or 0 in states.shape:
            raise RequestError(f"{USER_STATE.name} has shape {list(states.shape)}; expected [batch, size]")
        first = sum(map(len, self._states))
        self._states.append(states)
        rows = np.arange(first, first + len(states), dtype=np.float32)[:, None]
        width = self.retriever.light_width
        light = states[:, states.shape[1] - width :] if 0 < width <= states.shape[1] else states[:, :0]
        return np.concatenate([rows, light.float().cpu().numpy()], axis=1)

    def make_scorer(self) -> BlsScorer:
        """The scorer of one search."""
        return DeviceBlsScorer(self._all_states(), self.version, self.grid, self.retriever.rows)

    def states_of(self, user_states: Float32Array) -> Float32Array:
        """The user states of these row numbers, in host memory."""
        rows = torch.from_numpy(user_states[:, 0].astype(np.int64)).to(self._states[0].device)
        states: Float32Array = self._all_states().index_select(0, rows).cpu().numpy()
        return states

    def _all_states(self) -> Tensor:
        return self._states[0] if len(self._states) == 1 else torch.cat(self._states)
