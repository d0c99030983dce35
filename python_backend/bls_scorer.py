"""The scorer of the online search: one BLS call to the model `scorer` a round."""

from __future__ import annotations

import time

from nann.errors import ScorerError
from nann.scorer import Float32Array, Int32Array
from nann.signature import CANDIDATE_SCORES, CANDIDATES, SCORER, USER_STATE
from python_backend.tensors import call_model


class BlsScorer:
    """A `nann.scorer.Scorer` for one search that asks the model `scorer` of the same server.

    Args:
        model_version: the version of the bundle that the graph is from: graph and scorer never mix.
        max_search_ms: no call is made later than this after now. Triton's own timeouts end with the queue, and it does
            not tell the models of an ensemble that their request was cancelled.
    """

    def __init__(self, model_version: int, max_search_ms: int) -> None:
        self._model_version = model_version
        self._max_search_ms = max_search_ms
        self._deadline_s = time.monotonic() + max_search_ms / 1000

    def score(self, user_states: Float32Array, candidates: Int32Array) -> Float32Array:
        """Scores every candidate of every user in one call.

        Args:
            user_states: `float32[B, S]`.
            candidates: `int32[B, C]` item indices, -1 = padding.

        Returns:
            `float32[B, C]`.

        Raises:
            ScorerError: if the call failed, or it is too late for it. The search checks what comes back.
        """
        if time.monotonic() > self._deadline_s:
            raise ScorerError(
                f"the search was stopped after {self._max_search_ms} ms; ask for less (ef, rounds), "
                "or raise max_search_ms in config.pbtxt of beam_retrieval"
            )
        tensors = {USER_STATE: user_states, CANDIDATES: candidates}
        return call_model(SCORER.name, self._model_version, tensors, CANDIDATE_SCORES)
