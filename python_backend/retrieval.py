"""What beam_retrieval does with the requests of one batch, without Triton."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nann.beam_search import beam_search
from nann.bundle import Bundle
from nann.errors import RequestError
from nann.scorer import Float32Array, Scorer
from nann.search_params import SearchParams
from nann.signature import ITEM_IDS, ITEMS_SCORED, PADDING_ITEM, SCORES, USER_STATE, TensorSpec
from python_backend.search_requests import SearchBounds, parse_search_params


@dataclass(frozen=True)
class Search:
    """One valid request.

    Attributes:
        user_states: `float32[B, S]`, the users it asks about.
        params: what each of their searches may spend.
    """

    user_states: Float32Array
    params: SearchParams


class Retriever:
    """Parses requests and searches many of them at once.

    Args:
        bundle: with graph and item ids.
        bounds: the server's.

    Raises:
        BundleError: if the bundle is inconsistent, or recommends more than the server allows.
    """

    def __init__(self, bundle: Bundle, bounds: SearchBounds) -> None:
        bounds.check_defaults(bundle.search_params)
        self._bundle = bundle
        self._bounds = bounds
        self._graph = bundle.graph
        self._item_ids = bundle.item_ids

    def parse(self, user_states: npt.NDArray, parameters: str) -> Search:
        """Checks one request.

        Args:
            user_states: `float32[B, S]`.
            parameters: the request's, as JSON.

        Raises:
            RequestError: naming the tensor or the parameter.
        """
        if user_states.ndim != 2 or 0 in user_states.shape:
            raise RequestError(f"{USER_STATE.name} has shape {list(user_states.shape)}; expected [batch, size]")
        bundle = self._bundle
        return Search(
            user_states, parse_search_params(parameters, bundle.search_params, self._bounds, bundle.item_count)
        )

    def search(self, scorer: Scorer, searches: Sequence[Search]) -> list[dict[TensorSpec, npt.NDArray]]:
        """Searches for all users of all requests in lockstep: one scorer call a round.

        Args:
            scorer: scores candidates.
            searches: at least one request, all with user states of the same size.

        Returns:
            The outputs of each request: ITEM_IDS `int64[B, top_k]` padded with -1, SCORES `float32[B, top_k]` padded
            with -inf, ITEMS_SCORED `int32[B, 1]`; top_k is the request's own.

        Raises:
            ScorerError: if the scorer failed.
        """
        users = np.concatenate([search.user_states for search in searches])  # [sum of B, S]
        params = [search.params for search in searches for _ in search.user_states]
        result = beam_search(self._graph, scorer, users, params)
        ids = np.where(result.items == PADDING_ITEM, PADDING_ITEM, self._item_ids[result.items])
        outputs, row = [], 0
        for search in searches:
            rows = slice(row, row + len(search.user_states))
            row = rows.stop
            outputs.append(
                {
                    ITEM_IDS: ids[rows, : search.params.top_k],
                    SCORES: result.scores[rows, : search.params.top_k],
                    ITEMS_SCORED: result.items_scored[rows, None],  # [B] -> [B, 1]
                }
            )
        return outputs
