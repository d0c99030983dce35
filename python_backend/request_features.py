"""Turns the ids in requests into the inputs of the user encoder, and reads what the search must know beside them.

It asks the store of histories, too, for requests that name users: once for all requests of a batch.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nann.bundle import Bundle, feature_file_names
from nann.errors import RequestError
from nann.features import FeatureTransform
from nann.histories import StoredRows
from nann.item_ids import Ids
from nann.kernels import Int64Array
from nann.search_requests import arrived_ns, excludes_history, request_key
from nann.signature import (
    ALLOW_ITEM_IDS,
    BEHAVIOR_ITEM_IDS,
    BEHAVIORS,
    EXCLUDE_ITEM_IDS,
    HISTORY_UNREAD,
    PADDING_ITEM,
    PROFILE_CODES,
    STORED_ITEMS,
    UNKNOWN_ITEMS,
    USER_ID,
    USER_PROFILE,
    Tensors,
    TensorSpec,
)

from .histories.guarded import GuardedHistories
from .histories.opening import open_histories, recorded_address
from .histories.stored_rows import stored_rows
from .origin import Origin
from .settings import config_int
from .tensors import log_warning, read_optional_tensor, read_parameters
from .watch.history_metrics import HistoryMetrics
from .watch.publisher import MetricsPublisher


@dataclass(frozen=True, eq=False)
class UserFeatures:
    """What one request for B users says.

    Attributes:
        tensors: the outputs of feature_transform but for `origin`, `[B, ...]` each.
        origin: the request's arrival, key and lists.
        parameters: the request's, as JSON.
    """

    tensors: Tensors
    origin: Origin
    parameters: str


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


class RequestFeatures:
    """Reads the requests of a batch.

    Args:
        args: Triton's argument of `initialize`; the model's configuration has the parameters of feature_transform.
        folder: the version folder of feature_transform.
        publisher: of the metrics.

    Raises:
        BundleError: if a file is missing or changed.
    """

    def __init__(self, args: Mapping[str, str], folder: Path, publisher: MetricsPublisher) -> None:
        self._features = Bundle.open(folder, feature_file_names(Bundle.open(folder, ()).manifest)).features
        self._kind = self._features.id_kind
        self._behaviors, self._exclude, self._allow = map(
            self._kind.spec, (BEHAVIOR_ITEM_IDS, EXCLUDE_ITEM_IDS, ALLOW_ITEM_IDS)
        )
        config = json.loads(args["model_config"])
        self._max_request_length = config_int(config, "max_request_length")
        self._max_list_length = config_int(config, "max_list_length")
        self._max_stored_length = config_int(config, "max_stored_length")
        self._items = publisher.counter(
            "nann_behavior_items_total", "Item ids in requests and stored histories, without padding"
        )
        self._unknown_items = publisher.counter(
            "nann_unknown_items_total", "Those of them that the bundle does not know"
        )
        self._listed_items = publisher.counter(
            "nann_listed_items_total", "Item ids in exclude_item_ids and allow_item_ids, without padding"
        )
        self._unknown_listed_items = publisher.counter(
            "nann_unknown_listed_items_total", "Those of them that the bundle does not know"
        )
        self._histories: GuardedHistories | None = None
        self._history_metrics = HistoryMetrics(
            publisher, lambda: self._histories is not None and self._histories.is_open
        )
        address = recorded_address(Path(args["model_repository"]).parent)
        if address is not None:
            self._open_store(address, config_int(config, "history_timeout_ms") / 1e3)

    def of_batch(self, requests: Sequence[Any]) -> list[UserFeatures | Exception]:
        """The features of each request alone, since sequences differ in length; the store is asked once for all."""
        now_ns = time.monotonic_ns()
        stored = stored_rows(requests, self._histories)
        return [self._attempt(*one, now_ns) for one in zip(requests, stored, strict=True)]

    def close(self) -> None:
        """Leaves the store."""
        if self._histories is not None:
            self._histories.close()

    def _attempt(self, request: Any, stored: StoredRows | RequestError | None, now_ns: int) -> UserFeatures | Exception:
        try:
            return self._of_request(request, stored, now_ns)
        except Exception as error:  # it fails only its own request
            return error

    def _of_request(self, request: Any, stored: StoredRows | RequestError | None, now_ns: int) -> UserFeatures:
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
        features = self._features
        unread = ids.shape[1] > features.sequence_length or outputs[UNKNOWN_ITEMS].any()
        if (unread or features.behavior_ids is not None) and excludes_history(parameters):
            # beam_retrieval knows only the behaviours that the model reads.
            history = self._features.item_codes(ids)
            excluded = history if excluded is None else np.concatenate([excluded, history], axis=1)
        origin = Origin(
            arrived_ns(parameters) or now_ns,
            request_key(parameters),
            excluded,
            self._listed(request, self._allow),
            None if stored is None else stored.unread,
        )
        return UserFeatures(outputs, origin, parameters)

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
