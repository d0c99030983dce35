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
    return _mean_share(_hits(retrieved, _target_sets(len(retrieved), target_indptr, targets), "target item"))


def targets_found(retrieved: IntArray, target_indptr: IntArray, targets: IntArray) -> npt.NDArray[np.bool_]:
    """Whether each target was retrieved, `bool[T]`; for the arguments see `recall`.

    Raises:
        DataError: if they disagree on the number of users.
    """
    wanted, found, _ = _keys(_target_sets(len(retrieved), target_indptr, targets), _row_sets(retrieved))
    return np.isin(wanted, found)


def ndcg(retrieved: IntArray, target_indptr: IntArray, targets: IntArray) -> float:
    """NDCG@M: a target at place p of the list, from 1, gains 1 / log2(p + 1); divided by the gain of the best list.

    The best list begins with the user's targets, at most M of them. Arguments and errors are those of `recall`, but
    each row is in order, best first. Of an item that is in a row twice the first place counts.
    """
    hits = _hits(retrieved, _target_sets(len(retrieved), target_indptr, targets), "target item")
    gains = 1 / np.log2(np.arange(retrieved.shape[1]) + 2.0)  # [M]
    gained = np.bincount(hits.users, gains[hits.places], len(retrieved))  # [U]
    best = np.cumsum(gains)[np.minimum(hits.wanted, retrieved.shape[1]) - 1]  # [U]
    return float(np.mean(gained / best))


def coverage(retrieved: IntArray, exact: IntArray) -> float:
    """coverage@M = |R_u and B_u| / |B_u|: the share of the exact top M (B_u) that the search found; `int[U, M]` each.

    Raises:
        DataError: if the two disagree on the number of users, or a user has no exact item.
    """
    if len(exact) != len(retrieved):
        raise DataError(f"exact has {len(exact)} rows; expected {len(retrieved)}, as in retrieved")
    return _mean_share(_hits(retrieved, _row_sets(exact), "exact item"))


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


class _Sets(NamedTuple):
    """One set of items per user, as (user, item) pairs without padding: `int64[P]` each; a pair may occur twice."""

    users: npt.NDArray[np.int64]
    items: npt.NDArray[np.int64]


class _Hits(NamedTuple):
    """Items that were wanted and found.

    Attributes:
        wanted: `int64[U]`, how many distinct items each user wanted; at least 1.
        users: `int64[H]`, the user of each item found.
        places: `int64[H]`, where its row has it first.
    """

    wanted: npt.NDArray[np.int64]
    users: npt.NDArray[np.int64]
    places: npt.NDArray[np.int64]


def _hits(retrieved: IntArray, wanted: _Sets, what: str) -> _Hits:
    users, found = len(retrieved), _row_sets(retrieved)
    wanted_keys, found_keys, width = _keys(wanted, found)
    wanted_keys = np.unique(wanted_keys)
    counts = np.bincount(wanted_keys // width, minlength=users)
    if users == 0 or not counts.all():
        raise DataError(f"{np.count_nonzero(counts == 0)} of {users} users have no {what}; leave them out")
    found_keys, first = np.unique(found_keys, return_index=True)
    first = first[np.isin(found_keys, wanted_keys)]
    return _Hits(counts, found.users[first], np.nonzero(retrieved != PADDING_ITEM)[1][first])


def _keys(wanted: _Sets, found: _Sets) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], int]:
    """One number per pair, equal for equal pairs: user * width + a number of the item; and that width."""
    # An item becomes its position in a sorted list, so that the pair fits one integer, however large the ids are.
    items, codes = np.unique(np.concatenate([wanted.items, found.items]), return_inverse=True)
    width = max(len(items), 1)
    keys = np.concatenate([wanted.users, found.users]) * width + codes.reshape(-1)
    return keys[: len(wanted.items)], keys[len(wanted.items) :], width


def _mean_share(hits: _Hits) -> float:
    """Mean over users of the share of the wanted items that was found."""
    return float(np.mean(np.bincount(hits.users, minlength=len(hits.wanted)) / hits.wanted))


def _target_sets(users: int, target_indptr: IntArray, targets: IntArray) -> _Sets:
    if len(target_indptr) != users + 1 or target_indptr[-1] != len(targets):
        raise DataError(
            f"target_indptr is for {len(target_indptr) - 1} users and {target_indptr[-1]} targets; "
            f"expected {users} users, as in retrieved, and {len(targets)} targets, as in targets"
        )
    return _sets(np.repeat(np.arange(users), np.diff(target_indptr)), targets)


def _sets(users: npt.NDArray[np.intp], items: IntArray) -> _Sets:
    real = items != PADDING_ITEM
    return _Sets(users[real].astype(np.int64), items[real].astype(np.int64))


def _row_sets(items: IntArray) -> _Sets:
    return _sets(np.repeat(np.arange(len(items)), items.shape[1]), items.reshape(-1))  # [U, M] -> [U * M]
