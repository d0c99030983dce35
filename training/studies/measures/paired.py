"""How sure a difference of two methods' recall is, given that both are measured on the same users.

The standard error is that of a mean over a random sample of users. It says nothing of the randomness of a training.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ...reports.store import Json

Found = npt.NDArray[np.float64]
"""`float64[T]`: 1 for a target that a method found, 0 for another, between them for the mean of several models."""


def recall_difference(one: Found, other: Found, target_indptr: npt.NDArray[np.int64]) -> Json:
    """`difference`, the recall of `one` less that of `other`, and its `standard_error`; None for a single user.

    The targets of user u are `target_indptr[u]:target_indptr[u + 1]` of T, `int64[U + 1]`; every user has one or more.
    """
    of_users = np.add.reduceat(one - other, target_indptr[:-1]) / np.diff(target_indptr)
    count = len(of_users)
    error = float(of_users.std(ddof=1) / np.sqrt(count)) if count > 1 else None
    return {"difference": float(of_users.mean()), "standard_error": error}


def class_differences(
    one: Found, other: Found, target_indptr: npt.NDArray[np.int64], classes: npt.NDArray[np.intp], class_count: int
) -> list[Json]:
    """The same for the share of each class's targets that was found; None for a class of fewer than two users.

    `classes` are those of the targets, `intp[T]`. The targets of a user are found or missed together, so the error is
    that of a ratio of two sums over users.
    """
    users = np.repeat(np.arange(len(target_indptr) - 1), np.diff(target_indptr))
    differences: list[Json] = []
    for each in range(class_count):
        chosen = classes == each
        known, places = np.unique(users[chosen], return_inverse=True)
        if len(known) < 2:
            differences.append(None)
            continue
        counts, sums = np.bincount(places), np.bincount(places, (one - other)[chosen])
        mean = sums.sum() / counts.sum()
        error = np.sqrt(len(known) / (len(known) - 1) * np.sum((sums - mean * counts) ** 2)) / counts.sum()
        differences.append({"difference": float(mean), "standard_error": float(error)})
    return differences
