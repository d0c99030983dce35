"""What every search reads: the index that it walks, and the users that it searches for.

Light vectors and own items may be None, but have no default, so that nobody leaves them out by mistake: without them
a search finds other items than the served one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nann.errors import BundleError, RequestError
from nann.graph import HnswGraph
from nann.kernels import Float32Array, Int32Array


@dataclass(frozen=True, eq=False)
class SearchIndex:
    """The corpus as a search sees it; `Bundle.index` is that of a bundle.

    Attributes:
        graph: the layers to walk.
        light_vectors: `float32[N, d]`, the items' vectors for the light score (`nann.light_walk`); None: the model has
            no light score, and no search may start from seeds.

    Raises:
        BundleError: if `light_vectors` is not `float32[N, d]`.
    """

    graph: HnswGraph
    light_vectors: Float32Array | None

    def __post_init__(self) -> None:
        light = self.light_vectors
        if light is not None and (light.ndim != 2 or len(light) != self.item_count or light.dtype != np.float32):
            raise BundleError(
                f"light_vectors is {light.dtype}{list(light.shape)}; expected float32[{self.item_count}, d], "
                "one row per item of the graph"
            )

    @property
    def item_count(self) -> int:
        """N."""
        return self.graph.item_count

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

    Raises:
        RequestError: if an array has another dtype or shape, or they disagree on the number of users.
    """

    states: Float32Array
    own_items: Int32Array | None

    def __post_init__(self) -> None:
        states, own = self.states, self.own_items
        if states.ndim != 2 or states.dtype != np.float32:
            raise RequestError(
                f"user_states is {states.dtype}{list(states.shape)}; expected float32[B, S], one row per user"
            )
        if own is not None and (own.ndim != 2 or len(own) != len(states) or own.dtype != np.int32):
            raise RequestError(
                f"own_items is {own.dtype}{list(own.shape)}; expected int32[{len(states)}, L], one row per user"
            )

    def __len__(self) -> int:
        return len(self.states)

    def __getitem__(self, rows: slice | npt.NDArray[np.intp]) -> UserBatch:
        return UserBatch(self.states[rows], None if self.own_items is None else self.own_items[rows])

    @classmethod
    def concatenate(cls, batches: Sequence[UserBatch]) -> UserBatch:
        """Joins one or more batches of equal widths; the result has own items if all of them do."""
        own = [batch.own_items for batch in batches if batch.own_items is not None]
        states = np.concatenate([batch.states for batch in batches])  # [sum of B, S]
        return cls(states, np.concatenate(own) if len(own) == len(batches) else None)
