"""Requests and results as plain arrays: the part of the protocol that all transports share."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from nann.errors import RequestError, ServerError
from nann.item_ids import NUMBERS, IdKind, Ids, kind_of
from nann.search_params import RequestParameter, SearchOptions
from nann.shape_grid import MAX_BATCH_SIZE
from nann.signature import (
    ALLOW_ITEM_IDS,
    BEHAVIOR_ITEM_IDS,
    ENSEMBLE,
    EXCLUDE_ITEM_IDS,
    ITEM_IDS,
    ITEMS_MATCHING,
    ITEMS_SCORED,
    PADDING_SCORE,
    REQUEST_KEY,
    SCORES,
    STATUS,
    STORED_ITEMS,
    UNKNOWN_ITEMS,
    USER_ID,
    USER_PROFILE,
    TensorSpec,
)

from ._rows import ItemIds, UserIds, code_rows, id_rows, user_rows

_PRIORITY = RequestParameter("1 is the most important; 0 is the server's default.", low=0, high=3)


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
        id_kind: of the item ids in it; None: there are none.
        key: random, another for each request; the answer must have it (`REQUEST_KEY`).
    """

    model: str
    inputs: Mapping[TensorSpec, npt.NDArray[Any]]
    outputs: Sequence[str]
    parameters: Mapping[str, int | str | bool] = field(default_factory=dict)
    request_id: str = ""
    priority: int = 0
    id_kind: IdKind | None = None
    key: int = field(default_factory=lambda: 1 + secrets.randbelow(2**53 - 1), init=False)  # exact in JavaScript too

    @property
    def users(self) -> int:
        """How many users it is for, B."""
        return len(next(iter(self.inputs.values())))


@dataclass(frozen=True, eq=False)
class RetrievalResult:
    """The best items of B users.

    Attributes:
        item_ids: external ids, best first: `int64[B, K]` padded with -1, or where they are text `object[B, K]` of str,
            padded with "".
        scores: `float32[B, K]`, all finite, padded with the least float32, about -3.4e38 (JSON has no infinity).
        unknown_items: `int32[B]`, how many of each user's ids, with the stored ones, the bundle does not know.
        items_scored: `int32[B]`, how many candidates the scorer evaluated for each user.
        items_matching: `int64[B]`, how many items the request's conditions let each user have; all where it has none.
        status: `int32[B]`, the kind of each answer: `STATUS_COMPLETE`, `STATUS_PARTIAL` (the deadline came
            before the last round), `STATUS_DEGRADED` (ranked without the scorer) or `STATUS_NO_HISTORY` (complete, but
            without the stored history) of `nann.signature`.
        stored_items: `int32[B]`, how many of the behaviours that the model read come from the server's store; -1: it
            could not be asked.
        latency_ms: from sending the request to having the answer.
    """

    item_ids: Ids
    scores: npt.NDArray[np.float32]
    unknown_items: npt.NDArray[np.int32]
    items_scored: npt.NDArray[np.int32]
    items_matching: npt.NDArray[np.int64]
    status: npt.NDArray[np.int32]
    stored_items: npt.NDArray[np.int32]
    latency_ms: float


def encode_request(
    behavior_item_ids: ItemIds | None,
    options: SearchOptions | None = None,
    *,
    user_id: UserIds | None = None,
    user_profile: ItemIds | None = None,
    exclude_item_ids: ItemIds | None = None,
    allow_item_ids: ItemIds | None = None,
    priority: int = 0,
    request_id: str = "",
    id_kind: Callable[[], IdKind] = lambda: NUMBERS,
) -> InferRequest:
    """Builds a request; its arguments are those of `RetrievalClient.retrieve`, and the kind of the server's item ids.

    Raises:
        RequestError: naming the tensor or parameter, if something is of the wrong type or the sizes do not fit.
    """
    level = _PRIORITY.read("priority", priority)
    assert isinstance(level, int)
    if not isinstance(request_id, str) or not request_id.isprintable():
        raise RequestError(f"request_id is {request_id!r}; expected printable text")
    listed = {BEHAVIOR_ITEM_IDS: behavior_item_ids, EXCLUDE_ITEM_IDS: exclude_item_ids, ALLOW_ITEM_IDS: allow_item_ids}
    inputs: dict[TensorSpec, npt.NDArray[Any]] = {} if user_id is None else {USER_ID: user_rows(user_id)}
    given = {spec: values for spec, values in listed.items() if values is not None}
    rows = id_rows(given, id_kind) if given else {}
    if not inputs and BEHAVIOR_ITEM_IDS not in rows:
        raise RequestError(
            f"neither {BEHAVIOR_ITEM_IDS.name} nor {USER_ID.name} is given; expected one of them, or both"
        )
    users = len(inputs[USER_ID] if inputs else rows[BEHAVIOR_ITEM_IDS])
    kind = kind_of(next(iter(rows.values()))) if rows else None
    if len(own := rows.get(BEHAVIOR_ITEM_IDS, inputs.get(USER_ID, ()))) != users:
        raise RequestError(f"{BEHAVIOR_ITEM_IDS.name} has {len(own)} rows; expected {users}, one per {USER_ID.name}")
    inputs |= {spec: _of_each_user(spec, each, users) for spec, each in rows.items()}
    if user_profile is not None:
        inputs[USER_PROFILE] = profile = code_rows(USER_PROFILE, user_profile)
        if len(profile) != users:
            raise RequestError(f"{USER_PROFILE.name} has {len(profile)} rows; expected {users}, one per user")
    parameters = {} if options is None else options.to_parameters()
    outputs = [spec.name for spec in ENSEMBLE.outputs]
    return InferRequest(ENSEMBLE.name, inputs, outputs, parameters, request_id, level, kind)


def split(request: InferRequest) -> list[InferRequest]:
    """The request, or several with `MAX_BATCH_SIZE` of its users each: the server takes no more at once."""
    if request.users <= MAX_BATCH_SIZE:
        return [request]
    return [
        replace(request, inputs={spec: rows[first : first + MAX_BATCH_SIZE] for spec, rows in request.inputs.items()})
        for first in range(0, request.users, MAX_BATCH_SIZE)
    ]


def decode_result(request: InferRequest, outputs: Mapping[str, npt.NDArray[Any]], latency_ms: float) -> RetrievalResult:
    """Reads the response to a request: `outputs` holds array by tensor name.

    Raises:
        ServerError: if a tensor is missing or of another dtype or size than that of an answer to this request, or the
            answer is the one to another request.
    """
    users, width = request.users, request.parameters.get("top_k")
    found = outputs.get(ITEM_IDS.name)
    arrays, kind = {}, request.id_kind or (NUMBERS if found is None else kind_of(found))
    for spec in (kind.spec(ITEM_IDS), *ENSEMBLE.outputs[1:]):
        array, columns = outputs.get(spec.name), width if spec.shape == (-1,) else spec.shape[0]
        fits = array is not None and array.ndim == 2 and len(array) == users and columns in (None, array.shape[1])
        if array is None or array.dtype != spec.dtype or not fits:
            came = "nothing" if array is None else f"{array.dtype}{list(array.shape)}"
            wanted = f"{spec.triton_dtype} [{users}, {'any' if columns is None else columns}]"
            raise ServerError(f"the server returned {came} as {spec.name}; expected {wanted}")
        if spec.shape == (-1,):
            width = array.shape[1]  # as many scores as items
        arrays[spec] = array
    if (arrays[REQUEST_KEY] != request.key).any():
        raise ServerError(
            f"the server returned the answer to another request (request_key {arrays[REQUEST_KEY][0, 0]}, expected "
            f"{request.key}); it was dropped: send the request again"
        )
    try:
        item_ids = kind.readable(arrays[ITEM_IDS])
    except UnicodeDecodeError as error:
        raise ServerError(f"the server returned an item id that is no UTF-8 ({error}); check its bundle") from error
    return RetrievalResult(
        item_ids=item_ids,
        scores=arrays[SCORES],
        unknown_items=arrays[UNKNOWN_ITEMS][:, 0],  # [B, 1] -> [B]
        items_scored=arrays[ITEMS_SCORED][:, 0],
        items_matching=arrays[ITEMS_MATCHING][:, 0],
        status=arrays[STATUS][:, 0],
        stored_items=arrays[STORED_ITEMS][:, 0],
        latency_ms=latency_ms,
    )


def join(results: Sequence[RetrievalResult]) -> RetrievalResult:
    """The results of `split` requests as one. K is the largest: a deploy between them may change the default."""
    if len(results) == 1:
        return results[0]
    width, kind = max(result.item_ids.shape[1] for result in results), kind_of(results[0].item_ids)

    def padded(array: npt.NDArray[Any], padding: float | str) -> npt.NDArray[Any]:
        return np.pad(array, ((0, 0), (0, width - array.shape[1])), constant_values=padding)

    return RetrievalResult(
        item_ids=np.concatenate([padded(result.item_ids, kind.padding) for result in results]),
        scores=np.concatenate([padded(result.scores, PADDING_SCORE) for result in results]),
        unknown_items=np.concatenate([result.unknown_items for result in results]),
        items_scored=np.concatenate([result.items_scored for result in results]),
        items_matching=np.concatenate([result.items_matching for result in results]),
        status=np.concatenate([result.status for result in results]),
        stored_items=np.concatenate([result.stored_items for result in results]),
        latency_ms=sum(result.latency_ms for result in results),
    )


def _of_each_user(spec: TensorSpec, rows: Ids, users: int) -> Ids:
    """Rows of one list for all users, or of a list for each, as one for each."""
    if len(rows) not in (1, users):
        raise RequestError(f"{spec.name} has {len(rows)} rows; expected 1, or {users}, one per user")
    return np.repeat(rows, users // len(rows), axis=0)
