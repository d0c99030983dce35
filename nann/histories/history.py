"""What a store of histories gives, and the protocol that all stores have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from nann.item_ids import NUMBERS, IdKind, Ids

if TYPE_CHECKING:
    from .events import Events

HISTORY_LIMIT = 1_000
"""How many behaviours a store keeps of each user unless told otherwise: the newest."""
_NOBODYS_NUMBER = -2
"""A number that is no item's id, and no padding."""
_LARGEST = 2**63 - 1
_DIGITS = len(str(_LARGEST))
"""Fewer digits always fit into 64 bits."""


@dataclass(frozen=True, eq=False)
class UserHistory:
    """What a store has of one user.

    Attributes:
        item_ids: external ids, oldest first: `int64[n]`, or texts, `S[n]` or `object[n]` of bytes.
        profile: `int32[P]` codes of the user profile as the data set numbers them; None: the store has none.
    """

    item_ids: Ids
    profile: npt.NDArray[np.int32] | None = None


class Histories(Protocol):
    """A store of users' histories.

    A user id is the UTF-8 of a text, or of a number's decimal digits.
    """

    def read(self, user_ids: Sequence[bytes]) -> list[UserHistory | None]:
        """What the store has of each user; None: it does not know the user.

        Raises:
            HistoryError: if it can't be asked.
        """

    def append(self, events: Events) -> int:
        """Adds behaviours as `merged` says; returns how many are new.

        Raises:
            HistoryError: if they can't be written.
        """

    def close(self) -> None:
        """Ends the connection."""


def ids_of_kind(kind: IdKind, ids: Ids | Sequence[bytes]) -> Ids:
    """External ids of one dimension as a request to a bundle of this kind has them; what is no id of it stays unknown.

    Args:
        kind: of the bundle.
        ids: `int64[n]`, or texts as bytes.
    """
    if kind is not NUMBERS:
        ids = np.asarray(ids)
        return ids.astype(np.bytes_).astype(object) if ids.dtype.kind in "iu" else ids.astype(object)
    if isinstance(ids, np.ndarray) and ids.dtype.kind in "iu":
        return ids.astype(np.int64, copy=False)
    texts = list(ids)
    if b"".join(texts).isdigit() and all(0 < len(text) < _DIGITS for text in texts):
        return np.array(list(map(int, texts)), np.int64)
    return np.array([_number(text) for text in texts], np.int64)


def _number(text: bytes) -> int:
    number = int(text) if text.isdigit() and len(text) <= _DIGITS else _NOBODYS_NUMBER
    return number if number <= _LARGEST else _NOBODYS_NUMBER
