"""The model `feature_transform`: turns the ids in a request into the inputs of the user encoder."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nann.bundle import Bundle, feature_file_names
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
    ORIGIN,
    PADDING_ITEM,
    PROFILE_CODES,
    UNKNOWN_ITEMS,
    USER_PROFILE,
    Tensors,
    TensorSpec,
)

from ..origin import Origin
from ..settings import config_int
from ..tensors import answer_each, read_optional_tensor, read_parameters, read_tensor
from ..watch.publisher import MetricsPublisher


def transform(
    features: FeatureTransform, ids: Ids, profile: npt.NDArray[Any] | None, max_request_length: int
) -> Tensors:
    """The outputs for one request.

    Args:
        features: the transform of the bundle.
        ids: `int64[B, L]` external ids, or `object[B, L]` of text ids.
        profile: `int64[B, P]` codes of the user profile, or None.
        max_request_length: the largest L that is accepted.

    Raises:
        RequestError: naming the tensor.
    """
    behaviors, unknown = features.behaviors(ids)
    if ids.shape[1] > max_request_length:
        raise RequestError(
            f"{BEHAVIOR_ITEM_IDS.name} has {ids.shape[1]} ids per user; expected at most {max_request_length}: "
            f"the model reads only the newest {features.sequence_length}"
        )
    return {BEHAVIORS: behaviors, PROFILE_CODES: features.profile(profile, ids.shape[0]), UNKNOWN_ITEMS: unknown}


class TritonPythonModel:
    """Triton's view of the feature transform."""

    def initialize(self, args: Mapping[str, str]) -> None:
        """Opens and verifies the bundle's files in the version folder."""
        folder = Path(args["model_repository"]) / args["model_version"]
        self._features = Bundle.open(folder, feature_file_names(Bundle.open(folder, ()).manifest)).features
        self._kind = self._features.id_kind
        self._behaviors, self._exclude, self._allow = map(
            self._kind.spec, (BEHAVIOR_ITEM_IDS, EXCLUDE_ITEM_IDS, ALLOW_ITEM_IDS)
        )
        config = json.loads(args["model_config"])
        self._max_request_length = config_int(config, "max_request_length")
        self._max_list_length = config_int(config, "max_list_length")
        self._publisher = MetricsPublisher(args)
        self._items = self._publisher.counter("nann_behavior_items_total", "Item ids in requests, without padding")
        self._unknown_items = self._publisher.counter(
            "nann_unknown_items_total", "Item ids in requests that the bundle does not know"
        )
        self._listed_items = self._publisher.counter(
            "nann_listed_items_total", "Item ids in exclude_item_ids and allow_item_ids, without padding"
        )
        self._unknown_listed_items = self._publisher.counter(
            "nann_unknown_listed_items_total", "Those of them that the bundle does not know"
        )

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Answers each request alone, since behaviour sequences differ in length."""
        return answer_each(requests, self._answer)

    def finalize(self) -> None:
        """Reports the remaining metrics."""
        self._publisher.close()

    def _answer(self, request: Any) -> Tensors:
        arrived_ns = time.monotonic_ns()
        ids = read_tensor(request, self._behaviors)
        profile = read_optional_tensor(request, USER_PROFILE)
        outputs = transform(self._features, ids, profile, self._max_request_length)
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
        origin = Origin(arrived_ns, request_key(parameters), excluded, self._listed(request, self._allow))
        return {**outputs, ORIGIN: origin.pack(len(ids))}

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
