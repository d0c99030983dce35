"""A store of histories in the online store of a Feast repository, which others write: it is read alone.

The feature view has the entity join key `user_id`, a text, and the feature `item_ids`, an array of whole numbers or of
texts, oldest first; and if there are profiles `profile`, an array of whole numbers.

This file alone imports the package `feast`, an extra: it is imported where a Feast repository is configured.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from feast import FeatureStore

from nann.errors import ConfigError, HistoryError
from nann.histories import Events, UserHistory

VIEW = "user_history"
"""The feature view, unless the address names another: feast:FOLDER#VIEW."""
_ITEMS, _PROFILE = "item_ids", "profile"


class FeastHistories:
    """The histories in Feast.

    Args:
        address: feast:FOLDER or feast:FOLDER#VIEW, the folder of the Feast repository.
        limit: newest behaviours of a user that are read.

    Raises:
        ConfigError: if the folder is no Feast repository, or it has no such view.
    """

    def __init__(self, address: str, limit: int) -> None:
        folder, _, view = address.partition(":")[2].partition("#")
        self._view, self._limit = view or VIEW, limit
        if not (Path(folder) / "feature_store.yaml").is_file():
            raise ConfigError(f"{folder} is no Feast repository: it has no feature_store.yaml; see feast:FOLDER#VIEW")
        try:
            self._store = FeatureStore(repo_path=folder)
            fields = {field.name for field in self._store.get_feature_view(self._view).schema}
        except Exception as error:  # of Feast, its registry or its online store
            raise ConfigError(f"the Feast repository {folder} has no view {self._view!r} to read: {error}") from error
        if _ITEMS not in fields:
            raise ConfigError(f"the Feast view {self._view!r} has {sorted(fields)}; expected a feature {_ITEMS!r}")
        self._features = [f"{self._view}:{name}" for name in (_ITEMS, _PROFILE) if name in fields]

    def read(self, user_ids: Sequence[bytes]) -> list[UserHistory | None]:
        """What the online store has of each user, in one call; None: it does not know the user.

        Raises:
            HistoryError: if it can't be asked.
        """
        if not user_ids:
            return []
        rows = [{"user_id": user.decode(errors="replace")} for user in user_ids]
        try:
            found = self._store.get_online_features(features=self._features, entity_rows=rows).to_dict()
        except Exception as error:  # each online store has errors of its own
            raise HistoryError(f"Feast can't be asked for histories: {error}") from error
        profiles = found.get(_PROFILE, [None] * len(rows))
        return [_history(items, profile, self._limit) for items, profile in zip(found[_ITEMS], profiles, strict=True)]

    def append(self, events: Events) -> int:
        """Raises HistoryError: a Feast repository is written by its own means."""
        raise HistoryError(
            f"the view {self._view!r} of Feast is not written here ({len(events.users)} users came); write it with "
            "`feast materialize` or FeatureStore.write_to_online_store"
        )

    def close(self) -> None:
        """Nothing to end: Feast keeps its connections."""


def _history(items: Sequence[Any] | None, profile: Sequence[int] | None, limit: int) -> UserHistory | None:
    if items is None and profile is None:
        return None
    each = [item.encode() if isinstance(item, str) else b"%d" % item for item in (items or ())[-limit:]]
    return UserHistory(np.array(each, object), None if profile is None else np.array(profile, np.int32))
