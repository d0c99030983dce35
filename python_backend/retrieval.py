"""What beam_retrieval does with the requests of one batch, without Triton."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nann.beam_search import beam_search
from nann.bundle import LIGHT_VECTORS_FILE, Bundle
from nann.errors import BundleError, RequestError
from nann.light_walk import light_users
from nann.scorer import Float32Array, Scorer
from nann.search_params import SearchParams
from nann.signature import BEHAVIORS, ENTRY_SEEDS, ITEM_IDS, ITEMS_SCORED, PADDING_ITEM, SCORES, USER_STATE, TensorSpec
from python_backend.search_requests import SearchBounds, parse_search_params


@dataclass(frozen=True)
class Search:
    """One valid request.

    Attributes:
        user_states: `float32[B, S]`, the users it asks about.
        behaviors: `int32[B, L]`, item indices of their histories, -1 = padding.
        params: what each of their searches may spend.
    """

    user_states: Float32Array
    behaviors: npt.NDArray[np.int32]
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
        for params in bundle.search_by_entry.values():
            bounds.check_defaults(params)
        self._bundle = bundle
        self._bounds = bounds
        self._graph = bundle.graph
        self._item_ids = bundle.item_ids
        self._light_vectors = bundle.light_vectors
        if self._light_vectors is None and ENTRY_SEEDS in bundle.search_by_entry:
            raise BundleError(f"the bundle recommends entry {ENTRY_SEEDS!r} and has no {LIGHT_VECTORS_FILE}")

    @property
    def light_width(self) -> int:
        """How many numbers at the end of a user state are w_u of the light score; 0 without one."""
        return 0 if self._light_vectors is None else int(self._light_vectors.shape[1])

    def parse(self, user_states: npt.NDArray, behaviors: npt.NDArray, parameters: str) -> Search:
        """Checks one request.

        Args:
            user_states: `float32[B, S]`.
            behaviors: `int32[B, L]` item indices, -1 = padding.
            parameters: the request's, as JSON.

        Raises:
            RequestError: naming the tensor or the parameter.
            ScorerError: if the user encoder's light part holds NaN.
        """
        if user_states.ndim != 2 or 0 in user_states.shape:
            raise RequestError(f"{USER_STATE.name} has shape {list(user_states.shape)}; expected [batch, size]")
        bundle = self._bundle
        if behaviors.ndim != 2 or len(behaviors) != len(user_states):
            raise RequestError(f"{BEHAVIORS.name} has shape {list(behaviors.shape)}; expected [{len(user_states)}, L]")
        if behaviors.size and not PADDING_ITEM <= behaviors.min() <= behaviors.max() < bundle.item_count:
            raise RequestError(
                f"{BEHAVIORS.name} holds item indices from {behaviors.min()} to {behaviors.max()}; expected "
                f"{PADDING_ITEM} to {bundle.item_count - 1}: is feature_transform of the same bundle?"
            )
        params = parse_search_params(
            parameters, bundle.search_params, self._bounds, bundle.item_count, bundle.search_by_entry
        )
        if params.seeds is not None and self._light_vectors is not None:
            light_users(user_states, self._light_vectors.shape[1])  # what is wrong with one request fails it alone
        return Search(user_states, behaviors, params)

    def search(self, scorer: Scorer, searches: Sequence[Search]) -> list[dict[TensorSpec, npt.NDArray]]:
        """Searches for all users of all requests in lockstep: one scorer call a round.

        Args:
            scorer: scores candidates.
            searches: at least one request, all with user states and behaviours of the same size.

        Returns:
            The outputs of each request: ITEM_IDS `int64[B, top_k]` padded with -1, SCORES `float32[B, top_k]` padded
            with -inf, ITEMS_SCORED `int32[B, 1]`; top_k is the request's own.

        Raises:
            ScorerError: if the scorer failed.
        """
        users = np.concatenate([search.user_states for search in searches])  # [sum of B, S]
        behaviors = np.concatenate([search.behaviors for search in searches])  # [sum of B, L]
        params = [search.params for search in searches for _ in search.user_states]
        result = beam_search(self._graph, scorer, users, params, light_vectors=self._light_vectors, own_items=behaviors)
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
