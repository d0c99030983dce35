"""The stored histories of a request's users, as the model reads them together with what the request brings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nann.item_ids import IdKind, Ids

from .history import UserHistory, ids_of_kind


@dataclass(frozen=True)
class StoredRows:
    """What a store has of a request's B users.

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
