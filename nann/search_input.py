"""What every search reads: the index that it walks, and the users that it searches for.

Light vectors and own items may be None, but have no default, so that nobody leaves them out by mistake: without them
a search finds other items than the served one. Most searches have no conditions, so that `blocked` has a default.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from nann.errors import BundleError, RequestError
from nann.graph import HnswGraph
from nann.item_sets import bitmap_words
from nann.kernels import Float32Array, Int32Array, Uint64Array
from nann.light_codes import LightCodes

_ROOM, _LEAST_ROOM = 0.02, 1_024
"""Codes behind the items' that there is room for from the beginning, as a share of these, and at least."""


@dataclass(frozen=True, eq=False)
class UnlinkedItems:
    """Items that joined a corpus after its graph was built: they are in no list of neighbours, and have none.

    The items between those of the graph and `first` are nobody's, and must be blocked for every user.

    Attributes:
        first: index of the first one, a multiple of 64: sets of items are those of the graph, and then of these.
        count: D, how many there are, those that were deleted since among them.
        light_codes: of all `first + count` items; None: there is no light score.

    Raises:
        BundleError: if `first` is no multiple of 64.
    """

    first: int
    count: int
    light_codes: LightCodes | None

    def __post_init__(self) -> None:
        if self.first % 64:
            raise BundleError(f"the first added item is {self.first}; expected a multiple of 64")

    @staticmethod
    def first_after(item_count: int) -> int:
        """`first` of the items that join the N of a graph."""
        return 64 * bitmap_words(item_count)


@dataclass(frozen=True, eq=False)
class SearchIndex:
    """The corpus as a search sees it; `Bundle.index` is that of a bundle.

    Attributes:
        graph: the layers to walk.
        light_vectors: `float32[N, d]`, the items' vectors for the light score (`nann.light_walk`); None: the model has
            no light score, and no search may start from seeds.
        added: items beside those of the graph; None: there are none. With them, every search must say what is blocked.
        light_key: the hash of the light vectors' file, by which the processes of a server share what they make of them;
            None: this process makes its own.

    Raises:
        BundleError: if `light_vectors` is not `float32[N, d]`.
    """

    graph: HnswGraph
    light_vectors: Float32Array | None
    added: UnlinkedItems | None = None
    light_key: str | None = None

    def __post_init__(self) -> None:
        light, count = self.light_vectors, self.graph.item_count
        if light is not None and (light.ndim != 2 or len(light) != count or light.dtype != np.float32):
            raise BundleError(
                f"light_vectors is {light.dtype}{list(light.shape)}; expected float32[{count}, d], "
                "one row per item of the graph"
            )

    @property
    def item_count(self) -> int:
        """N, or one more than the index of the last added item."""
        return self.graph.item_count if self.added is None else self.added.first + self.added.count

    @cached_property
    def light_codes(self) -> LightCodes:
        """Of the light vectors, which must be there; what a scan under conditions reads. Made at the first use."""
        if self.added is not None and self.added.light_codes is not None:
            return self.added.light_codes
        return replace(self.codes_with_room, codes=self.codes_with_room.codes[: self.graph.item_count])

    @cached_property
    def codes_with_room(self) -> LightCodes:
        """`light_codes` of a corpus without added items, and behind them room for those of some."""
        assert self.light_vectors is not None
        room = max(int(_ROOM * self.graph.item_count), _LEAST_ROOM)
        if self.light_key is None:
            return LightCodes.of(self.light_vectors, room)
        return LightCodes.shared(self.light_vectors, room, self.light_key)

    @property
    def light_width(self) -> int:
        """d: how many numbers at the end of a user state are the user's vector for the light score; 0 without one."""
        return 0 if self.light_vectors is None else int(self.light_vectors.shape[1])


@dataclass(frozen=True, eq=False)
class UserBatch:
    """B users to search for.

    Attributes:
        states: `float32[B, S]`, one row per user, from the user encoder.
        own_items: `int32[B, L]`, items of the users' histories, -1 = padding; None: unknown. Searches from seeds start
            at them too: a scorer that has learned repeat purchases scores them far above the items around them, so a
            walk from elsewhere may miss them.
        blocked: `uint64[B, W]`, items that the user may not be shown (`nann.item_sets`): they are neither scored nor
            returned, own items among them; a search may walk through them. None: all items may be shown to all users.

    Raises:
        RequestError: if an array has another dtype or shape, or they disagree on the number of users.
    """

    states: Float32Array
    own_items: Int32Array | None
    blocked: Uint64Array | None = None

    def __post_init__(self) -> None:
        states, own, blocked = self.states, self.own_items, self.blocked
        if states.ndim != 2 or states.dtype != np.float32:
            raise RequestError(
                f"user_states is {states.dtype}{list(states.shape)}; expected float32[B, S], one row per user"
            )
        if own is not None and (own.ndim != 2 or len(own) != len(states) or own.dtype != np.int32):
            raise RequestError(
                f"own_items is {own.dtype}{list(own.shape)}; expected int32[{len(states)}, L], one row per user"
            )
        if blocked is not None and (blocked.ndim != 2 or len(blocked) != len(states) or blocked.dtype != np.uint64):
            raise RequestError(
                f"blocked is {blocked.dtype}{list(blocked.shape)}; expected uint64[{len(states)}, W], one row per user"
            )

    def __len__(self) -> int:
        return len(self.states)

    def __getitem__(self, rows: slice | npt.NDArray[np.intp]) -> UserBatch:
        return UserBatch(self.states[rows], _rows(self.own_items, rows), _rows(self.blocked, rows))

    def blocked_of(self, item_count: int) -> Uint64Array | None:
        """`blocked`, C-contiguous, for a corpus of N items.

        Raises:
            RequestError: if it is made for another N.
        """
        blocked = self.blocked
        if blocked is None:
            return None
        words = bitmap_words(item_count)
        if blocked.shape[1] != words:
            raise RequestError(
                f"blocked has {blocked.shape[1]} words per user; expected {words}, a bit for each of {item_count} items"
            )
        if item_count % 64 and (blocked[:, -1] >> np.uint64(item_count % 64)).any():
            raise RequestError(f"blocked holds an item of {item_count} or above; expected items below {item_count}")
        return np.ascontiguousarray(blocked)

    @classmethod
    def concatenate(cls, batches: Sequence[UserBatch]) -> UserBatch:
        """Joins one or more batches of equal widths.

        The result has own items if all of them do, and blocked items if any of them does.
        """
        if len(batches) == 1:
            return batches[0]
        own = [batch.own_items for batch in batches if batch.own_items is not None]
        states = np.concatenate([batch.states for batch in batches])  # [sum of B, S]
        return cls(states, np.concatenate(own) if len(own) == len(batches) else None, _joined_blocked(batches))


def _rows(array: npt.NDArray[Any] | None, rows: slice | npt.NDArray[np.intp]) -> npt.NDArray[Any] | None:
    return None if array is None else array[rows]


def _joined_blocked(batches: Sequence[UserBatch]) -> Uint64Array | None:
    widths = [batch.blocked.shape[1] for batch in batches if batch.blocked is not None]
    if not widths:
        return None
    joined = np.zeros((sum(map(len, batches)), widths[0]), np.uint64)  # pages that nobody writes to cost nothing
    row = 0
    for batch in batches:
        if batch.blocked is not None:
            joined[row : row + len(batch)] = batch.blocked
        row += len(batch)
    return joined
