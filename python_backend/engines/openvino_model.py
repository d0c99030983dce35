"""A version's ONNX scorer under OpenVINO, with products in bfloat16; for modules that have no native form."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nann.errors import ScorerError
from nann.item_rows import ItemRows, candidate_tensor
from nann.scorer import Float32Array, score_in_blocks, shared_by
from nann.signature import CANDIDATE_SCORES, SCORER, USER_STATE, ModelSpec

_BLOCK_PAIRS = 2000
"""Pairs of a user and a candidate that a thread scores at a time."""
_STEP = 128
"""Blocks are padded to a multiple of so many candidates: OpenVINO takes milliseconds for the first call of a shape."""


def openvino_refusal() -> str | None:
    """Why this process can't run scorers under OpenVINO in bfloat16; None if it can."""
    try:
        import openvino
    except ImportError:
        return "it is not installed (`pip install 'nann[serve-openvino]'`)"
    if "BF16" not in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        return "it needs a CPU with bfloat16"
    return None


class OpenVinoModel:
    """Runs an ONNX scorer, in the place of an `OnnxModel`. Threads may share it.

    Args:
        path: the ONNX file; external data is in the same folder.
        spec: its signature.
        threads: how many share the blocks of a call.

    Raises:
        RuntimeError: if OpenVINO does not take the model.
    """

    def __init__(self, path: Path, spec: ModelSpec, threads: int = 1) -> None:
        import openvino

        settings = {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": threads, "INFERENCE_PRECISION_HINT": "bf16"}
        self._compiled = openvino.Core().compile_model(str(path), "CPU", settings)
        self._candidates = spec.inputs[1]
        self._each_block = shared_by(threads)
        self._own = threading.local()

    def run(self, inputs: Mapping[str, npt.NDArray[Any]]) -> npt.NDArray[Any]:
        """See `OnnxModel.run`."""
        return self.score(inputs[USER_STATE.name], inputs[self._candidates.name])

    def score(
        self, user_states: Float32Array, candidates: npt.NDArray[Any], rows: ItemRows | None = None
    ) -> Float32Array:
        """See `OnnxModel.score`."""

        def score(states: Float32Array, items: npt.NDArray[Any]) -> Float32Array:
            value = items if rows is None else candidate_tensor(items, rows)[1]
            return self._infer(states, value)

        return score_in_blocks(score, user_states, candidates, _BLOCK_PAIRS, self._each_block)

    def _infer(self, states: Float32Array, value: npt.NDArray[Any]) -> Float32Array:
        if not hasattr(self._own, "request"):
            self._own.request = self._compiled.create_infer_request()
        users, count = value.shape[:2]
        padded = np.zeros((users, -(-count // _STEP) * _STEP, *value.shape[2:]), value.dtype)
        padded[:, :count] = value
        feed = {USER_STATE.name: np.ascontiguousarray(states), self._candidates.name: padded}
        try:
            self._own.request.infer(feed, share_inputs=True)
            scores = self._own.request.get_tensor(CANDIDATE_SCORES.name).data
        except RuntimeError as error:
            shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in feed.items())
            raise ScorerError(f"{SCORER.name} failed under OpenVINO on {shapes}: {error}") from error
        return np.array(scores[:, :count])
