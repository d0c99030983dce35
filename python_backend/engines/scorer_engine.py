"""What runs a scorer on a CPU: `OnnxModel`, `NativeModel`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy.typing as npt

from nann.item_rows import ItemRows
from nann.scorer import Float32Array


class ScorerEngine(Protocol):
    """What runs a scorer, whatever it is."""

    def run(self, inputs: Mapping[str, npt.NDArray[Any]]) -> npt.NDArray[Any]:
        """`OnnxModel.run`."""

    def score(
        self, user_states: Float32Array, candidates: npt.NDArray[Any], rows: ItemRows | None = None
    ) -> Float32Array:
        """`OnnxModel.score`."""
