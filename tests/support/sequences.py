"""A prepared data set straight from sequences, without a log."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from nann.training.data.prepared import PreparedData


def data_of(histories: Sequence[npt.NDArray[np.integer[Any]]], held_out: int = 0, **changes: Any) -> PreparedData:
    """One user for each sequence of item indices; the last `held_out` of each are test targets and not trained on."""
    items = np.concatenate(histories).astype(np.int32)
    lengths = np.array([len(history) for history in histories])
    end = np.cumsum(lengths)
    count = int(items.max()) + 1
    trained = np.arange(len(items)) < np.repeat(end - held_out, lengths)
    none = np.full((len(end), 2), -1)
    data = PreparedData(
        item_ids=np.arange(1, count + 1),
        item_categories=np.zeros(count, np.int32),
        category_labels=("",),
        item_attributes=None,
        train_counts=np.bincount(items[trained], minlength=count),
        item_names=None,
        behavior_items=items,
        behavior_group_first=np.arange(len(items)),
        user_ids=pl.Series(range(len(end))),
        user_first=end - lengths,
        user_end=end,
        user_train_end=end - held_out,
        user_targets={"validation": none, "test": np.stack([end - held_out, end], axis=1) if held_out else none},
        excludes_history=False,
        user_profiles=np.zeros((len(end), 0), np.int32),
        profile_fields=(),
        manifest={},
        item_rows=np.arange(len(np.arange(1, count + 1))),
    )
    return replace(data, **changes)
