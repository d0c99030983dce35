"""Searches for one user in this process, with the models of the server's bundle: what explains an answer."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass

import numpy as np

from nann import item_sets
from nann.bundle import SCORER_FILE, USER_ENCODER_FILE, Bundle
from nann.errors import RequestError
from nann.filters import NamedFilters
from nann.histories import HISTORY_LIMIT, Histories, StoredRows
from nann.item_ids import Ids
from nann.kernels import BoolArray, Int64Array
from nann.request_conditions import RequestConditions
from nann.search_input import UserBatch
from nann.search_params import SearchParams
from nann.search_requests import SERVED_BOUNDS, parse_search
from nann.signature import BEHAVIORS, PROFILE_CODES, USER_ENCODER
from nann.threads import core_count

from ..python_backend.engines.onnx_model import EmbeddedScorer, OnnxModel
from .asked import Asked
from .comparison import EveryScore
from .walk import Walk, traced_walk, walks

_KEPT_USERS = 4
"""Users whose scores of all items are kept: a dial that moves asks for the same user again."""
_WALKS = 3
"""How often a walk is taken: one that had to wait for a processor says nothing of where a search's time goes."""


@dataclass(frozen=True, eq=False)
class Person:
    """A user as a search takes them.

    Attributes:
        ids: `[1, L]`, external ids of the whole history, the stored part first.
        batch: of one user, with what the question's conditions block.
        params: of the search.
    """

    ids: Ids
    batch: UserBatch
    params: SearchParams


class Replay:
    """The searches; one runs at a time.

    Args:
        bundle: that the server answers from.
        histories: the store that the server asks; None: it has none, or it is not known.
        operator: filters that the server's operator has named; None: they are not known.

    Raises:
        BundleError: if a model of the bundle can't be loaded.
    """

    def __init__(self, bundle: Bundle, histories: Histories | None, operator: NamedFilters | None = None) -> None:
        self._bundle = bundle
        self._histories = histories
        self._operator = operator
        self._encoder = OnnxModel(bundle.path / USER_ENCODER_FILE, USER_ENCODER)
        self._scorer = EmbeddedScorer.open(bundle.path / SCORER_FILE, core_count(), bundle.item_rows)
        self._conditions = RequestConditions(bundle, operator)
        if bundle.light_vectors is not None:
            _ = bundle.index.light_codes  # made now, as the server does: they are no part of a search's time
        self._kept: OrderedDict[bytes, EveryScore] = OrderedDict()
        self._one = threading.Lock()

    def person(self, asked: Asked) -> Person:
        """The user and the search of a question, as the server sees them.

        Raises:
            RequestError: if the question is none for this bundle, or names a user and no store is known, or a filter
                that is not known.
            HistoryError: if the store can't be asked.
        """
        self._check_name(asked.options.filter_name)
        ids, stored_profile = self._history(asked)
        codes = stored_profile if asked.profile is None else np.array([asked.profile], np.int64)
        features = self._bundle.features
        behaviors, _ = features.behaviors(ids)
        profile = features.profile(codes, 1)
        states = self._encoder.run({BEHAVIORS.name: behaviors, PROFILE_CODES.name: profile})
        excluded = np.array([asked.excluded], np.int32) if asked.excluded else None
        blocked = self._conditions.blocked(asked.options, features.item_indices(ids), excluded=excluded)
        bundle = self._bundle
        bounds = SERVED_BOUNDS.of_corpus(bundle.item_count)
        _, params = parse_search(asked.options.to_parameters(), bundle.search_params, bundle.search_by_entry, bounds)
        return Person(ids, UserBatch(states, features.own_items(behaviors), blocked), params)

    def walk(self, person: Person) -> Walk:
        """The walk that the server takes for this question, with the times of the fastest of a few."""
        with self._one:
            walks = [traced_walk(self._bundle.index, self._scorer, person.batch, person.params) for _ in range(_WALKS)]
        return min(walks, key=lambda walk: walk.stages_ms["total"])

    def walks(self, person: Person) -> bool:
        """See `nann.explore.walk.walks`."""
        return walks(self._bundle.index, person.batch, person.params)

    def every_score(self, person: Person) -> EveryScore:
        """The user's scores of all items; kept for the users that came last."""
        key = person.batch.states.tobytes()
        with self._one:
            if key not in self._kept:
                vectors = self._bundle.light_vectors
                self._kept[key] = EveryScore.of(self._scorer, person.batch, self._bundle.item_count, vectors)
            self._kept.move_to_end(key)
            while len(self._kept) > _KEPT_USERS:
                self._kept.popitem(last=False)
            return self._kept[key]

    def shown(self, person: Person) -> BoolArray:
        """`bool[N]`, the items that may be shown to the user."""
        shown = np.ones(self._bundle.item_count, np.bool_)
        if person.batch.blocked is not None:
            shown[item_sets.members(person.batch.blocked[0])] = False
        return shown

    def _check_name(self, name: str | None) -> None:
        if name is None or name in self._bundle.filters:
            return
        if self._operator is None or self._operator.version(name) is None:
            raise RequestError(
                f"the filter {name!r} can't be read here; start `nann explore` with the server's --repository, which "
                "holds what its operator has named"
            )

    def _history(self, asked: Asked) -> tuple[Ids, Int64Array | None]:
        """`[1, L]` external ids, and the codes of the stored profile, `int64[1, P]`, as the server takes them."""
        kind = self._bundle.id_kind
        own = kind.row(kind.plain(self._bundle.item_ids[list(asked.items)]))
        if asked.user_id is None:
            return own, None
        if self._histories is None:
            raise RequestError(
                f"the history of user {asked.user_id!r} can't be read here; start `nann explore` with the server's "
                "--repository, whose store it then asks too"
            )
        stored = StoredRows(self._histories.read([asked.user_id.encode()]), np.zeros(1, np.bool_))
        width = len(self._bundle.features.profile_sizes)
        return stored.before(own, kind, HISTORY_LIMIT), stored.profile(width)
