"""The stored histories of the users of requests: one read for all requests of a batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from nann.errors import RequestError
from nann.histories import StoredRows
from nann.item_ids import MAX_ID_BYTES
from nann.signature import BEHAVIOR_ITEM_IDS, USER_ID

from ..tensors import read_optional_tensor
from .guarded import GuardedHistories


def stored_rows(requests: Sequence[Any], store: GuardedHistories | None) -> list[StoredRows | RequestError | None]:
    """What the store has for each request; None: it names no users; an error: it can't be answered."""
    asked: list[list[bytes] | RequestError | None] = [_asked(request, store) for request in requests]
    users = sorted({user for one in asked if isinstance(one, list) for user in one if user})
    found = store.read(users) if store is not None and users else []
    known = {} if found is None else dict(zip(users, found, strict=True))
    return [
        StoredRows([known.get(user) for user in one], np.array([found is None and user != b"" for user in one]))
        if isinstance(one, list)
        else one
        for one in asked
    ]


def _asked(request: Any, store: GuardedHistories | None) -> list[bytes] | RequestError | None:
    try:
        tensor = read_optional_tensor(request, USER_ID)
        if tensor is None:
            return None
        if store is None:
            raise RequestError(
                f"{USER_ID.name} came, and this server has no store of histories; send {BEHAVIOR_ITEM_IDS.name}, or "
                "start it with `nann serve --histories`"
            )
        if tensor.ndim != 2 or tensor.shape[1] != 1:
            raise RequestError(f"{USER_ID.name} has shape {list(tensor.shape)}; expected [batch, 1]")
        users = [bytes(user) for user in tensor[:, 0].tolist()]
        longest = max(map(len, users), default=0)
        if longest > MAX_ID_BYTES:
            raise RequestError(f"{USER_ID.name} has {longest:,} bytes; expected at most {MAX_ID_BYTES}")
        return users
    except RequestError as error:
        return error
