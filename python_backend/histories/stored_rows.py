"""The stored histories of the users of requests: one read for all requests of a batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from nann.errors import RequestError
from nann.histories import UserHistory, ids_of_kind
from nann.item_ids import MAX_ID_BYTES, IdKind, Ids
from nann.signature import BEHAVIOR_ITEM_IDS, USER_ID

from ..tensors import read_optional_tensor
from .guarded import GuardedHistories


@dataclass(frozen=True)
class StoredRows:
    """What the store has of a request's B users.

    Attributes:
        histories: one for each user; None: the request names no user there, or the store has nothing.
        unread: `bool[B]`, whose history could not be read.
    """

    histories: Sequence[UserHistory | None]
    unread: npt.NDArray[np.bool_]

    def before(self, ids: Ids | None, kind: IdKind, limit: int) -> Ids:
        """The stored ids, at most `limit` of a user, and behind them a request's own.

        Args:
            ids: `[B, L]` the request's; None: it has none.
            kind: of the bundle's ids.
            limit: newest stored ids of each user.

        Returns:
            `[B, W + L]`, padded on the left.
        """
        stored = [None if one is None else ids_of_kind(kind, one.item_ids[-limit:]) for one in self.histories]
        width = max((len(one) for one in stored if one is not None), default=0)
        rows = np.full((len(stored), width), kind.request_padding, kind.dtype)
        for row, one in enumerate(stored):
            if one is not None:
                rows[row, width - len(one) :] = one
        return rows if ids is None else np.concatenate([rows, ids], axis=1)

    def profile(self, width: int) -> npt.NDArray[np.int64] | None:
        """The stored codes of the users' profiles, `int64[B, width]`, 0 = unknown; None: there are none that fit."""
        fits = [one is not None and one.profile is not None and len(one.profile) == width for one in self.histories]
        if not width or not any(fits):
            return None
        codes = np.zeros((len(fits), width), np.int64)
        for row, one in enumerate(self.histories):
            if fits[row] and one is not None:
                codes[row] = one.profile
        return codes


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
