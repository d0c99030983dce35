"""Answers the requests of one batch for beam_retrieval, without Triton."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from nann.beam_search import beam_search
from nann.bundle import LIGHT_VECTORS_FILE, Bundle
from nann.catalog import LiveCorpus, LiveIndex, Snapshot
from nann.cheap_ranking import rank_by_light_score, rank_by_neighbourhood
from nann.errors import (
    BundleError,
    DeadlineExceeded,
    RequestError,
    ScorerError,
    ScorerUnavailable,
    SearchStopped,
)
from nann.filters import NamedFilters
from nann.item_ids import Ids
from nann.kernels import NATIVE
from nann.light_walk import light_users
from nann.request_conditions import RequestConditions, items_matching
from nann.scorer import Float32Array, Scorer
from nann.search_input import UserBatch
from nann.search_params import SearchParams
from nann.search_requests import SearchBounds, TimeLimit, own_parameters, parse_search
from nann.signature import (
    BEHAVIORS,
    DEADLINE_MESSAGE,
    ENTRY_SEEDS,
    ITEM_IDS,
    ITEMS_MATCHING,
    ITEMS_SCORED,
    ON_DEADLINE_PARTIAL,
    PADDING_ITEM,
    REQUEST_KEY,
    SCORES,
    STATUS,
    STATUS_COMPLETE,
    STATUS_DEGRADED,
    STATUS_NO_HISTORY,
    STATUS_PARTIAL,
    USER_STATE,
    Tensors,
)

from ..origin import Origin
from .clock import SearchClock
from .outcomes import Kind, Outcome


@dataclass(frozen=True, eq=False)
class Search:
    """One valid request.

    Attributes:
        users: the users of the request; their own items are their behaviour sequences.
        params: search parameters for each of the users.
        limit: how long the search may take.
        arrived_ns: arrival of the request, on the monotonic clock.
        key: the request's `request_key`.
        unread: `bool[B]`, whose stored history could not be read; None: nobody's.
        beside: further outputs of its answer.
    """

    users: UserBatch
    params: SearchParams
    limit: TimeLimit
    arrived_ns: int
    key: int = 0
    unread: npt.NDArray[np.bool_] | None = None
    beside: Tensors = field(default_factory=dict)

    def reason_to_stop(self, now_ns: int) -> SearchStopped | None:
        """Why no further round may start; None: one may start."""
        if now_ns - self.arrived_ns >= self.limit.deadline_ms * 1_000_000:
            partial = self.limit.on_deadline == ON_DEADLINE_PARTIAL
            advice = (
                "it came before the first items were scored: ask for a longer one, or try again when fewer wait"
                if partial
                else f'ask for less (ef, rounds), or for the best items so far (on_deadline "{ON_DEADLINE_PARTIAL}")'
            )
            return DeadlineExceeded(f"{DEADLINE_MESSAGE} (deadline_ms {self.limit.deadline_ms}); {advice}")
        return None


class Retriever:
    """Parses requests and searches for many of them at once.

    Args:
        bundle: with graph and item ids.
        bounds: the server's.
        limit: for requests that set none; no request may take longer.
        degrade: whether to answer with a cheap ranking if the scorer fails.
        operator: filters that the server's operator has named; None: there are none.
        live: the bundle's items with their changes; None: they do not change.

    Raises:
        BundleError: if the bundle is inconsistent, or its search defaults exceed the server's bounds.
    """

    def __init__(
        self,
        bundle: Bundle,
        bounds: SearchBounds,
        limit: TimeLimit,
        *,
        degrade: bool = False,
        operator: NamedFilters | None = None,
        live: LiveCorpus | None = None,
    ) -> None:
        self._params, self._by_entry = bundle.search_params, bundle.search_by_entry
        for params in self._by_entry.values():
            bounds.check_defaults(params, bundle.item_count)
        self._bundle = bundle
        self._item_ids = bundle.id_kind.spec(ITEM_IDS)
        self._bounds = bounds.of_corpus(bundle.item_count)
        self._limit = limit
        self._degrade = degrade
        self._index = bundle.index
        self._conditions = RequestConditions(bundle, operator)
        if self._index.light_vectors is None and ENTRY_SEEDS in self._by_entry:
            raise BundleError(f"the bundle recommends entry {ENTRY_SEEDS!r} and has no {LIGHT_VECTORS_FILE}")
        if self._index.light_vectors is not None:
            _ = self._index.light_codes  # made now, so that the first request under a filter does not wait for them
        self.rows = bundle.item_rows
        self.live = live
        self._live_index = LiveIndex(bundle)
        self._snapshot: Snapshot | None = None
        self.refresh()

    def refresh(self) -> None:
        """Makes the next requests see all changes of items that were acknowledged; call it before each batch.

        Raises:
            JournalError: if they can't be read; an answer could hold deleted items.
        """
        if self.live is not None and (snapshot := self.live.refresh()) is not self._snapshot:
            self._conditions.follow(snapshot.removed, snapshot.attributes, snapshot.added)
            self._index, self.rows = self._live_index.of(snapshot.added)
            self._snapshot = snapshot

    @property
    def item_count(self) -> int:
        """One more than the largest item index."""
        return self._index.item_count

    def external_ids(self, items: npt.NDArray[np.int32]) -> Ids:
        """The ids of item indices of any shape; -1 becomes padding."""
        if self.live is None or self._snapshot is None:
            return self._bundle.external_ids(items)
        return self.live.id_of(items, self._snapshot.added)

    def item_indices(self, ids: Ids) -> npt.NDArray[np.int32]:
        """The item index of each id of an answer, of any shape; -1: padding, or it is not there any more."""
        if self.live is None:
            return self._bundle.features.item_indices(ids)
        return self.live.index_of(ids.ravel().tolist()).reshape(ids.shape)

    @property
    def light_width(self) -> int:
        """Width of w_u of the light score, which is at the end of a user state; 0 without a light score."""
        return self._index.light_width

    def parse(
        self,
        user_states: npt.NDArray[Any],
        behaviors: npt.NDArray[Any],
        parameters: str,
        origin: Origin | None = None,
        beside: Tensors | None = None,
    ) -> Search:
        """Checks one request.

        Args:
            user_states: `float32[B, S]`.
            behaviors: `int32[B, L]` behaviour indices (`FeatureTransform.behavior_ids`), -1 = padding.
            parameters: the request's parameters, as JSON.
            origin: the request's arrival, key and lists; None: it arrives now, without lists.
            beside: further outputs of its answer; None: there are none.

        Raises:
            RequestError: naming the tensor or the parameter.
            ScorerError: if the user encoder's light part holds NaN.
        """
        if user_states.ndim != 2 or 0 in user_states.shape:
            raise RequestError(f"{USER_STATE.name} has shape {list(user_states.shape)}; expected [batch, size]")
        bundle, features = self._bundle, self._bundle.features
        if behaviors.ndim != 2 or len(behaviors) != len(user_states):
            raise RequestError(f"{BEHAVIORS.name} has shape {list(behaviors.shape)}; expected [{len(user_states)}, L]")
        if behaviors.size and not PADDING_ITEM <= behaviors.min() <= behaviors.max() < len(features.known_ids):
            raise RequestError(
                f"{BEHAVIORS.name} holds item indices from {behaviors.min()} to {behaviors.max()}; expected "
                f"{PADDING_ITEM} to {len(features.known_ids) - 1}: is feature_transform from the same bundle?"
            )
        own_items = features.own_items(behaviors)
        options, params = parse_search(own_parameters(parameters), self._params, self._by_entry, self._bounds)
        if params.every_item:
            self._bounds.check_all(bundle.item_count)
        if params.seeds is not None:
            light_users(user_states, self._index.light_width)  # an invalid state must fail only its own request
        origin = origin or Origin(time.monotonic_ns(), 0)
        blocked = self._conditions.blocked(options, own_items, excluded=origin.excluded, allowed=origin.allowed)
        return Search(
            UserBatch(user_states, own_items, blocked),
            params,
            self._limit.asked(options),
            min(origin.arrived_ns, time.monotonic_ns()),
            origin.key,
            origin.unread,
            beside or {},
        )

    def answer(self, scorer: Scorer, searches: Sequence[Search], clock: SearchClock | None = None) -> list[Outcome]:
        """Searches for all users of all requests in lockstep, with one scorer call per round.

        If that fails, each request is searched alone, so that only the requests fail that cause an error.

        Args:
            scorer: scores candidates.
            searches: requests whose user states and behaviours have equal widths; may be empty.
            clock: measures the search.

        Returns:
            One outcome per request. Outputs are ITEM_IDS `int64[B, top_k]` padded with -1, or texts padded with "";
            SCORES `float32[B, top_k]` padded with `PADDING_SCORE`, ITEMS_SCORED and STATUS `int32[B, 1]`,
            ITEMS_MATCHING and REQUEST_KEY `int64[B, 1]`; top_k is the request's own.
        """
        if not searches:
            return []
        try:
            return self._search(scorer, searches, clock or SearchClock())
        except ScorerUnavailable as error:  # no request causes it, so it would fail again for each
            return [self._without_scorer(search, error) for search in searches]
        except Exception as error:
            if len(searches) == 1:
                return [self._without_scorer(searches[0], error)]
            return [outcome for search in searches for outcome in self.answer(scorer, [search], clock)]

    def _search(self, scorer: Scorer, searches: Sequence[Search], clock: SearchClock) -> list[Outcome]:
        stop = _Stop(searches)
        result = beam_search(
            self._index,
            clock.scorer(scorer),
            UserBatch.concatenate([search.users for search in searches]),
            [search.params for search in searches for _ in range(len(search.users))],
            kernels=clock.kernels(NATIVE),
            observer=clock.observer(searches),
            stop=stop,
        )
        assert result.finished is not None
        outcomes, row = [], 0
        for search, reason in zip(searches, stop.reasons, strict=True):
            rows = slice(row, row + len(search.users))
            row = rows.stop
            kind = Kind.COMPLETE
            if reason is not None and not result.finished[rows].all():
                if not _is_partial_wanted(search, reason) or not result.rounds[rows].any():
                    outcomes.append(Outcome.of_error(reason))
                    continue
                kind = Kind.PARTIAL
            scored = result.items_scored[rows]
            status = np.where(result.finished[rows], STATUS_COMPLETE, STATUS_PARTIAL)
            matching = result.items_matching[rows]
            outputs = self._outputs(search, result.items[rows], result.scores[rows], scored, matching, status)
            outcomes.append(Outcome(kind, outputs, None, result.rounds[rows], scored))
        return outcomes

    def _without_scorer(self, search: Search, error: Exception) -> Outcome:
        """The cheap ranking if `degrade` is set and the scorer failed, otherwise the error."""
        if not self._degrade or not isinstance(error, ScorerError):
            return Outcome.of_error(error)
        users = len(search.users)
        try:
            if self._index.light_vectors is None:
                found = rank_by_neighbourhood(self._index, search.users, search.params.top_k)
            else:
                found = rank_by_light_score(self._index, search.users, [search.params] * users)
        except ScorerError as ranking_error:
            return Outcome.of_error(ranking_error)
        none = np.zeros(users, np.int32)
        matching = items_matching(search.users.blocked, users, self.item_count)
        outputs = self._outputs(search, *found, none, matching, np.full(users, STATUS_DEGRADED))
        return Outcome(Kind.DEGRADED, outputs, error, none, none)

    def _outputs(
        self,
        search: Search,
        items: npt.NDArray[np.int32],
        scores: Float32Array,
        items_scored: npt.NDArray[np.int32],
        matching: npt.NDArray[np.int64],
        status: npt.NDArray[np.int_],
    ) -> Tensors:
        top_k = search.params.top_k
        ids = self.external_ids(items)
        if search.unread is not None:
            status = np.where((status == STATUS_COMPLETE) & search.unread, STATUS_NO_HISTORY, status)
        return {
            self._item_ids: ids[:, :top_k],
            SCORES: scores[:, :top_k],
            ITEMS_SCORED: items_scored[:, None],  # [B] -> [B, 1]
            ITEMS_MATCHING: matching[:, None],
            STATUS: status[:, None],
            REQUEST_KEY: np.full((len(ids), 1), search.key),
            **search.beside,
        }


def _is_partial_wanted(search: Search, reason: SearchStopped) -> bool:
    return isinstance(reason, DeadlineExceeded) and search.limit.on_deadline == ON_DEADLINE_PARTIAL


class _Stop:
    """Stops searches that may start no further round (`nann.beam_search.Stop`), and keeps the reasons.

    Attributes:
        reasons: one per request; None: it was not stopped.
    """

    def __init__(self, searches: Sequence[Search]) -> None:
        self.reasons: list[SearchStopped | None] = [None] * len(searches)
        self._searches = searches
        self._users = [len(search.users) for search in searches]

    def __call__(self) -> npt.NDArray[np.bool_]:
        now_ns = time.monotonic_ns()
        self.reasons = [
            reason or search.reason_to_stop(now_ns) for search, reason in zip(self._searches, self.reasons, strict=True)
        ]
        return np.repeat([reason is not None for reason in self.reasons], self._users)
