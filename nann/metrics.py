"""Quality and cost of a retrieval (section 8), averaged over users.

Items are sets: their order and duplicates do not count, and -1 is padding.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from nann.errors import DataError
from nann.signature import PADDING_ITEM

IntArray = npt.NDArray[np.int32] | npt.NDArray[np.int64]


def recall(retrieved: IntArray, target_indptr: IntArray, targets: IntArray) -> float:
    """recall@M = |P and G| / |G|: the share of a user's targets (ground truth items) that was retrieved.

    With P from `exact_search` it is recall-all, with P from a graph search recall-retrieval.

    Args:
        retrieved: `int[U, M]`, P.
        target_indptr: `int[U + 1]`, the targets of user u are `targets[target_indptr[u]:target_indptr[u + 1]]`.
        targets: `int[T]`, G of all users.

    Raises:
        DataError: if the two disagree on the number of users, or a user has no target.
    """
    if len(target_indptr) != len(retrieved) + 1 or target_indptr[-1] != len(targets):
        raise DataError(
            f"target_indptr is for {len(target_indptr) - 1} users and {target_indptr[-1]} targets; "
            f"expected {len(retrieved)} users, as in retrieved, and {len(targets)} targets, as in targets"
        )
    target_users = np.repeat(np.arange(len(retrieved)), np.diff(target_indptr))
    return _mean_share_found(retrieved, _sets(target_users, targets), "target item")


def coverage(retrieved: IntArray, exact: IntArray) -> float:
    """coverage@M = |R_u and B_u| / |B_u|: the share of the exact top M (B_u) that the search found; `int[U, M]` each.

    Raises:
        DataError: if the two disagree on the number of users, or a user has no exact item.
    """
    if len(exact) != len(retrieved):
        raise DataError(f"exact has {len(exact)} rows; expected {len(retrieved)}, as in retrieved")
    return _mean_share_found(retrieved, _row_sets(exact), "exact item")


def recall_delta(recall_all: float, recall_retrieval: float) -> float:
    """recall-Delta = (recall-all - recall-retrieval) / recall-all: what the search loses; NaN if recall-all is 0."""
    return (recall_all - recall_retrieval) / recall_all if recall_all else float("nan")


def share_scored(items_scored: IntArray, item_count: int) -> float:
    """Items scored (`int[U]`) / `item_count`: the cost axis of the paper's figures.

    Raises:
        DataError: if there are no users.
    """
    if len(items_scored) == 0:
        raise DataError("items_scored is empty; expected at least one user")
    return float(np.mean(items_scored, dtype=np.float64) / item_count)


def _mean_share_found(retrieved: IntArray, wanted: _Sets, what: str) -> float:
    """Mean over users of the share of their `wanted` items that was retrieved."""
    users = len(retrieved)
    found = _row_sets(retrieved)
    # An item becomes its position in a sorted list, so that (user, item) fits one integer, however large the ids are.
    items, codes = np.unique(np.concatenate([wanted.items, found.items]), return_inverse=True)
    keys = np.concatenate([wanted.users, found.users]) * len(items) + codes.reshape(-1)
    wanted_keys, found_keys = np.unique(keys[: len(wanted.items)]), keys[len(wanted.items) :]
    owners = wanted_keys // max(len(items), 1)
    counts = np.bincount(owners, minlength=users)
    if users == 0 or not counts.all():
        raise DataError(f"{np.count_nonzero(counts == 0)} of {users} users have no {what}; leave them out")
    hits = np.bincount(owners[np.isin(wanted_keys, found_keys)], minlength=users)
    return float(np.mean(hits / counts))


class _Sets(NamedTuple):
    """One set of items per user, as (user, item) pairs without padding: `int64[P]` each; a pair may occur twice."""

    users: npt.NDArray[np.int64]
    items: npt.NDArray[np.int64]


def _sets(users: npt.NDArray[np.intp], items: IntArray) -> _Sets:
    real = items != PADDING_ITEM
    return _Sets(users[real].astype(np.int64), items[real].astype(np.int64))


def _row_sets(items: IntArray) -> _Sets:
    return _sets(np.repeat(np.arange(len(items)), items.shape[1]), items.reshape(-1))  # [U, M] -> [U * M]
