"""Requests and results as plain arrays: the part of the protocol that all transports share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from nann.errors import RequestError, ServerError
from nann.search_params import SearchOptions
from nann.signature import (
    BEHAVIOR_ITEM_IDS,
    ENSEMBLE,
    ITEM_IDS,
    ITEMS_SCORED,
    PADDING_IDS,
    SCORES,
    STATUS,
    UNKNOWN_ITEMS,
    USER_PROFILE,
    TensorSpec,
)

ItemIds = Sequence[int] | Sequence[Sequence[int]] | npt.NDArray[np.integer[Any]]
"""Item ids of one user, or of several; histories may differ in length."""


@dataclass(frozen=True)
class InferRequest:
    """One request as a transport sends it.

    Attributes:
        model: name of the served model.
        inputs: array by tensor, batch dimension first.
        outputs: names of the tensors to return.
        parameters: KServe request parameters.
        request_id: echoed by the server, for logs; "" is none.
        priority: of the server's levels, 1 the most important; 0 is the server's default.
    """

    model: str
    inputs: Mapping[TensorSpec, npt.NDArray[Any]]
    outputs: Sequence[str]
    parameters: Mapping[str, int | str] = field(default_factory=dict)
    request_id: str = ""
    priority: int = 0


@dataclass(frozen=True, eq=False)
class RetrievalResult:
    """The best items of B users.

    Attributes:
        item_ids: `int64[B, K]` external ids, best first, padded with -1.
        scores: `float32[B, K]`, padded with -inf.
        unknown_items: `int32[B]`, how many of each user's ids the bundle does not know.
        items_scored: `int32[B]`, how many candidates the scorer evaluated for each user.
        status: `int32[B]`, the kind of each answer: `STATUS_COMPLETE`, `STATUS_PARTIAL` (the deadline came
            before the last round) or `STATUS_DEGRADED` (ranked without the scorer) of `nann.signature`.
        latency_ms: from sending the request to having the answer.
    """

    item_ids: npt.NDArray[np.int64]
    scores: npt.NDArray[np.float32]
    unknown_items: npt.NDArray[np.int32]
    items_scored: npt.NDArray[np.int32]
    status: npt.NDArray[np.int32]
    latency_ms: float


def encode_request(
    behavior_item_ids: ItemIds,
    options: SearchOptions | None = None,
    *,
    user_profile: ItemIds | None = None,
    priority: int = 0,
    request_id: str = "",
) -> InferRequest:
    """Builds a request; its arguments are those of `RetrievalClient.retrieve`.

    Raises:
        RequestError: naming the tensor, if something is not a whole number or the sizes do not fit.
    """
    ids = _rows(BEHAVIOR_ITEM_IDS, behavior_item_ids)
    inputs = {BEHAVIOR_ITEM_IDS: ids}
    if user_profile is not None:
        profile = _rows(USER_PROFILE, user_profile)
        if len(profile) != len(ids):
            raise RequestError(f"{USER_PROFILE.name} has {len(profile)} rows; expected {len(ids)}, one per user")
        inputs[USER_PROFILE] = profile
    parameters = {} if options is None else options.to_parameters()
    outputs = [spec.name for spec in ENSEMBLE.outputs]
    return InferRequest(ENSEMBLE.name, inputs, outputs, parameters, request_id, priority)


def decode_result(outputs: Mapping[str, npt.NDArray[Any]], latency_ms: float) -> RetrievalResult:
    """Reads a response: `outputs` holds array by tensor name.

    Raises:
        ServerError: if a tensor is missing or of another dtype or rank, as from another kind of server.
    """
    arrays = {}
    for spec in ENSEMBLE.outputs:
        array = outputs.get(spec.name)
        if array is None or array.dtype != spec.dtype or array.ndim != 2:
            came = "nothing" if array is None else f"{array.dtype}{list(array.shape)}"
            raise ServerError(f"the server returned {came} as {spec.name}; expected {spec.triton_dtype} [batch, any]")
        arrays[spec] = array
    return RetrievalResult(
        item_ids=arrays[ITEM_IDS],
        scores=arrays[SCORES],
        unknown_items=arrays[UNKNOWN_ITEMS][:, 0],  # [B, 1] -> [B]
        items_scored=arrays[ITEMS_SCORED][:, 0],
        status=arrays[STATUS][:, 0],
        latency_ms=latency_ms,
    )


def _rows(spec: TensorSpec, values: ItemIds) -> npt.NDArray[np.int64]:
    """Rows of whole numbers, `int64[B, L]` with L >= 1, shorter ones padded on the left."""
    several = len(values) > 0 and all(
        isinstance(row, Sequence | np.ndarray) and not isinstance(row, str) for row in values
    )
    rows = [_whole_numbers(spec, row) for row in (values if several else [values])]
    width = max(1, *(len(row) for row in rows))
    padded = np.full((len(rows), width), PADDING_IDS[0], spec.dtype)
    for place, row in enumerate(rows):
        padded[place, width - len(row) :] = row
    return padded


def _whole_numbers(spec: TensorSpec, row: object) -> npt.NDArray[np.int64]:
    expected = "expected whole numbers, one list per user"
    try:
        numbers = np.asarray(row)
    except ValueError as error:
        raise RequestError(f"{spec.name} holds lists of different depth; {expected}") from error
    if numbers.ndim != 1 or (len(numbers) and not np.issubdtype(numbers.dtype, np.integer)):
        raise RequestError(f"{spec.name} holds {numbers.dtype}{list(numbers.shape)}; {expected}")
    if numbers.dtype == np.uint64 and numbers.max(initial=0) > np.iinfo(np.int64).max:
        raise RequestError(f"{spec.name} holds {numbers.max()}; expected 64-bit signed numbers")
    return numbers.astype(np.int64)
