"""The model `feature_transform`: turns the ids in a request into the inputs of the user encoder.

It asks the store of histories, too, for requests that name users: once for all requests of a batch.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nann.bundle import ITEM_IDS_FILE, Bundle
from nann.errors import RequestError
from nann.features import FeatureTransform
from nann.item_ids import Ids
from nann.kernels import Int64Array
from nann.search_requests import excludes_history, request_key
from nann.signature import (
    ALLOW_ITEM_IDS,
    BEHAVIOR_ITEM_IDS,
    BEHAVIORS,
    EXCLUDE_ITEM_IDS,
    HISTORY_UNREAD,
    ORIGIN,
    PADDING_ITEM,
    PROFILE_CODES,
    STORED_ITEMS,
    UNKNOWN_ITEMS,
    USER_ID,
    USER_PROFILE,
    Tensors,
    TensorSpec,
)

from ..histories.guarded import GuardedHistories
from ..histories.opening import open_histories, recorded_address
from ..histories.stored_rows import StoredRows, stored_rows
from ..origin import Origin
from ..settings import config_int
from ..tensors import answer_each, log_warning, read_optional_tensor, read_parameters
from ..watch.history_metrics import HistoryMetrics
from ..watch.publisher import MetricsPublisher

FILES = (ITEM_IDS_FILE,)
"""Files of the bundle that this model reads."""


def transform(
    features: FeatureTransform, ids: Ids, profile: npt.NDArray[Any] | None
) -> dict[TensorSpec, npt.NDArray[Any]]:
    """The outputs for one request, without a stored history.

    Args:
        features: the transform of the bundle.
        ids: `int64[B, L]` external ids, or `object[B, L]` of text ids.
        profile: `int64[B, P]` codes of the user profile, or None.

    Raises:
        RequestError: naming the tensor.
    """
    behaviors, unknown = features.behaviors(ids)
    return {
        BEHAVIORS: behaviors,
        PROFILE_CODES: features.profile(profile, ids.shape[0]),
        UNKNOWN_ITEMS: unknown,
        STORED_ITEMS: np.zeros((len(ids), 1), np.int32),
    }


class TritonPythonModel:
    """Triton's view of the feature transform."""

    def initialize(self, args: Mapping[str, str]) -> None:
        """Opens and verifies the bundle's files in the version folder."""
        folder = Path(args["model_repository"]) / args["model_version"]
        self._features = Bundle.open(folder, FILES).features
        self._kind = self._features.id_kind
        self._behaviors, self._exclude, self._allow = map(
            self._kind.spec, (BEHAVIOR_ITEM_IDS, EXCLUDE_ITEM_IDS, ALLOW_ITEM_IDS)
        )
        config = json.loads(args["model_config"])
        self._max_request_length = config_int(config, "max_request_length")
        self._max_list_length = config_int(config, "max_list_length")
        self._max_stored_length = config_int(config, "max_stored_length")
        self._publisher = MetricsPublisher(args)
        self._items = self._publisher.counter(
            "nann_behavior_items_total", "Item ids in requests and stored histories, without padding"
        )
        self._unknown_items = self._publisher.counter(
            "nann_unknown_items_total", "Those of them that the bundle does not know"
        )
        self._listed_items = self._publisher.counter(
            "nann_listed_items_total", "Item ids in exclude_item_ids and allow_item_ids, without padding"
        )
        self._unknown_listed_items = self._publisher.counter(
            "nann_unknown_listed_items_total", "Those of them that the bundle does not know"
        )
        self._histories: GuardedHistories | None = None
        self._history_metrics = HistoryMetrics(
            self._publisher, lambda: self._histories is not None and self._histories.is_open
        )
        address = recorded_address(Path(args["model_repository"]).parent)
        if address is not None:
            self._open_store(address, config_int(config, "history_timeout_ms") / 1e3)

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Answers each request alone, since sequences differ in length; the store is asked once for all."""
        arrived_ns = time.monotonic_ns()
        stored = iter(stored_rows(requests, self._histories))
        return answer_each(requests, lambda request: self._answer(request, next(stored), arrived_ns))

    def finalize(self) -> None:
        """Leaves the store, and reports the remaining metrics."""
        if self._histories is not None:
            self._histories.close()
        self._publisher.close()

    def _answer(self, request: Any, stored: StoredRows | RequestError | None, arrived_ns: int) -> Tensors:
        if isinstance(stored, RequestError):
            raise stored
        ids, profile = self._own_ids(request), read_optional_tensor(request, USER_PROFILE)
        if stored is not None:
            outputs, ids = self._with_stored(ids, profile, stored)
        elif ids is not None:
            outputs = transform(self._features, ids, profile)
        else:
            raise RequestError(
                f"neither {BEHAVIOR_ITEM_IDS.name} nor {USER_ID.name} came; expected one of them, or both"
            )
        self._items.add(int(np.count_nonzero(~self._kind.is_padding(ids))))
        self._unknown_items.add(int(outputs[UNKNOWN_ITEMS].sum()))
        parameters = read_parameters(request)
        excluded = self._listed(request, self._exclude)
        unread = ids.shape[1] > self._features.sequence_length or outputs[UNKNOWN_ITEMS].any()
        if unread and excludes_history(parameters):
            # beam_retrieval knows only the behaviours that the model reads.
            history = self._features.item_codes(ids)
            excluded = history if excluded is None else np.concatenate([excluded, history], axis=1)
        origin = Origin(
            arrived_ns,
            request_key(parameters),
            excluded,
            self._listed(request, self._allow),
            None if stored is None else stored.unread,
        )
        return {**outputs, ORIGIN: origin.pack(len(ids))}

    def _open_store(self, address: str, timeout_s: float) -> None:
        self._histories = GuardedHistories(
            lambda: open_histories(address, timeout_s, self._max_stored_length),
            log_warning,
            self._history_metrics.read,
        )

    def _own_ids(self, request: Any) -> Ids | None:
        """The request's behaviours, `[B, L]`; None: it has none."""
        ids = read_optional_tensor(request, self._behaviors)
        if ids is not None and ids.ndim == 2 and ids.shape[1] > self._max_request_length:
            raise RequestError(
                f"{BEHAVIOR_ITEM_IDS.name} has {ids.shape[1]} ids per user; expected at most "
                f"{self._max_request_length}: the model reads only the newest {self._features.sequence_length}"
            )
        return ids

    def _with_stored(
        self, own: Ids | None, profile: npt.NDArray[Any] | None, stored: StoredRows
    ) -> tuple[dict[TensorSpec, npt.NDArray[Any]], Ids]:
        """The outputs of a request that names users, and all ids that they come from, `[B, any]`."""
        features, users = self._features, len(stored.histories)
        ids = stored.before(own, self._kind, self._max_stored_length)
        if profile is None:
            profile = stored.profile(len(features.profile_sizes))
        outputs = transform(features, ids, profile)
        # The request's own are newer, so the model reads them first.
        own_known = np.zeros(users, int) if own is None else (features.item_indices(own) != PADDING_ITEM).sum(axis=1)
        read = (outputs[BEHAVIORS] != PADDING_ITEM).sum(axis=1)
        count = read - np.minimum(own_known, features.sequence_length)
        outputs[STORED_ITEMS] = np.where(stored.unread, HISTORY_UNREAD, count)[:, None]
        unread = int(stored.unread.sum())
        known = sum(one is not None for one in stored.histories)
        self._history_metrics.users(known, users - known - unread, unread)
        return outputs, ids

    def _listed(self, request: Any, spec: TensorSpec) -> Int64Array | None:
        """The items of an optional list of ids, as `FeatureTransform.item_codes` gives them; None: there is no list."""
        ids = read_optional_tensor(request, spec)
        if ids is None:
            return None
        if ids.shape[1] > self._max_list_length:
            raise RequestError(
                f"{spec.name} has {ids.shape[1]} ids per user; expected at most {self._max_list_length}: "
                "name a set of items with `nann filters set --ids`"
            )
        items = self._features.item_codes(ids)
        self._listed_items.add(int(np.count_nonzero(items != PADDING_ITEM)))
        self._unknown_listed_items.add(int(np.count_nonzero(items < PADDING_ITEM)))
        return items
