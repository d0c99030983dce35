"""What the served ensemble must answer: the same search offline, its two models by onnxruntime."""

from __future__ import annotations

import numpy as np
import onnxruntime

from nann.beam_search import beam_search
from nann.bundle import Bundle
from nann.search_params import SearchParams


class OfflineEnsemble:
    """feature_transform, user_encoder and beam_retrieval without Triton."""

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle
        self._user_encoder, self._scorer = (
            onnxruntime.InferenceSession(str(bundle.path / name), providers=["CPUExecutionProvider"])
            for name in ("user_encoder.onnx", "scorer.onnx")
        )

    def score(self, user_states: np.ndarray, candidates: np.ndarray) -> np.ndarray:
        return self._scorer.run(None, {"user_state": user_states, "candidates": candidates})[0]

    def retrieve(self, ids: list[int], params: SearchParams | None = None) -> tuple[np.ndarray, np.ndarray, int]:
        """`int64[top_k]` item ids, `float32[top_k]` scores, and how many items were scored."""
        behaviors, _ = self._bundle.features.behaviors(np.array([ids], np.int64))
        (states,) = self._user_encoder.run(None, {"behaviors": behaviors})
        bundle, params = self._bundle, params or self._bundle.search_params
        result = beam_search(
            bundle.graph, self, states, params, light_vectors=bundle.light_vectors, own_items=behaviors
        )
        items = result.items[0]
        return np.where(items < 0, -1, self._bundle.item_ids[items]), result.scores[0], int(result.items_scored[0])
