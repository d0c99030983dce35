"""Test users of a prepared data set: what they took before, and next."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from nann.bundle import Bundle
from nann.errors import DataError

from ..training.data.prepared import PreparedData


class HeldOutUsers:
    """The users with ground truth of the split `test`, with items as the bundle numbers them.

    Args:
        path: the folder of `nann prepare`.
        bundle: that was made from it.

    Raises:
        DataError: if it is no prepared data set, or has no test users.
    """

    def __init__(self, path: Path, bundle: Bundle) -> None:
        data = PreparedData.load(path)
        if data.id_kind is not bundle.id_kind:
            raise DataError(f"{path} has ids that are {data.id_kind.words}; expected {bundle.id_kind.words}")
        self._queries = data.queries("test", bundle.sequence_length)
        self._ids, self._user_ids = data.item_ids, data.user_ids
        self._features = bundle.features
        self._profiles = bool(data.profile_fields) and bool(bundle.features.profile_sizes)

    def __len__(self) -> int:
        return len(self._queries.users)

    def user(self, number: int) -> dict[str, Any]:
        """One of them: `user`, `items` of the history, oldest first, `next` items and `profile` codes or None."""
        queries = self._queries
        history = self._features.item_indices(queries.external_ids[number])
        following = self._features.item_indices(self._ids[queries.targets_of(number)])
        return {
            "user": str(self._user_ids[int(queries.users[number])]),
            "items": history[history >= 0].tolist(),
            "next": np.unique(following[following >= 0]).tolist(),
            "profile": queries.profiles[number].tolist() if self._profiles else None,
        }
