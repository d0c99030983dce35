"""Recall by how often training saw the target: rare and new items are what models differ in most."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import numpy.typing as npt

from nann.metrics import IntArray, targets_found

_BOUNDS = (0, 1, 10, 50)
CLASSES = (*(f"{low}-{high - 1}" if high - low > 1 else f"{low}" for low, high in pairwise(_BOUNDS)), f"{_BOUNDS[-1]}+")
"""How often an item is among the training rows."""


def frequency_classes(targets: IntArray, train_counts: npt.NDArray[np.int64]) -> npt.NDArray[np.intp]:
    """The class in CLASSES of each target, `int[T]` items, given the counts of all items, `int64[N]`."""
    return np.searchsorted(_BOUNDS, train_counts[targets], side="right") - 1


def count_targets(targets: IntArray, train_counts: npt.NDArray[np.int64]) -> list[int]:
    """How many targets each class has; see `frequency_classes`."""
    counts: list[int] = np.bincount(frequency_classes(targets, train_counts), minlength=len(CLASSES)).tolist()
    return counts


def recall_by_frequency(
    retrieved: IntArray, target_indptr: IntArray, targets: IntArray, train_counts: npt.NDArray[np.int64]
) -> list[float | None]:
    """The share of each class's targets that was retrieved; None for a class without targets.

    Arguments are those of `nann.metrics.recall`, and how often training saw each item, `int64[N]`.
    """
    classes = frequency_classes(targets, train_counts)
    found = np.bincount(classes, targets_found(retrieved, target_indptr, targets), len(CLASSES))
    return [
        float(hits / count) if count else None
        for hits, count in zip(found, count_targets(targets, train_counts), strict=True)
    ]
