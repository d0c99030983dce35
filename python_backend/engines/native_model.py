"""The scorer of a version in its native form, in the place of an `OnnxModel`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy.typing as npt

from nann.bundle import Bundle
from nann.errors import ScorerError
from nann.item_rows import ItemRows
from nann.native_scorer import NativeScorer
from nann.scorer import Float32Array
from nann.signature import SCORER, USER_STATE


class NativeModel:
    """Runs the native form in a version folder (`nann.native_scorer`).

    Args:
        bundle: the opened version folder.
        threads: how many share the candidates of a call.

    Raises:
        BundleError: if the folder has no native form, or it is damaged.
    """

    def __init__(self, bundle: Bundle, threads: int = 1) -> None:
        self._scorer = NativeScorer.open(bundle.path, bundle.manifest, threads)
        self._candidates = bundle.exported_models[SCORER.name].inputs[1].name

    def run(self, inputs: Mapping[str, npt.NDArray[Any]]) -> npt.NDArray[Any]:
        """See `OnnxModel.run`."""
        return self.score(inputs[USER_STATE.name], inputs[self._candidates])

    def score(
        self, user_states: Float32Array, candidates: npt.NDArray[Any], rows: ItemRows | None = None
    ) -> Float32Array:
        """See `OnnxModel.score`."""
        try:
            return self._scorer.score(user_states, candidates, rows)
        except (IndexError, TypeError, ValueError) as error:
            shapes = f"{USER_STATE.name} {list(user_states.shape)}, {self._candidates} {list(candidates.shape)}"
            raise ScorerError(f"{SCORER.name} failed on {shapes}: {error}") from error
