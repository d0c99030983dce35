"""What every search reads: the index that it walks, and the users it searches for.

Both hold a part that some searches can do without. No field has a default, so that it is never left out by mistake: a
search without the light vectors or without the users' own items finds something else than the one that is served.
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
    """The corpus as a search sees it; that of a bundle is `Bundle.index`.

    Attributes:
        graph: the layers to walk.
        light_vectors: `float32[N, d]`, the items' side of the light score (`nann.light_walk`); None: the model has no
            light score, and no search may enter by seeds.

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
                "one row an item of the graph"
            )

    @property
    def item_count(self) -> int:
        """N."""
        return self.graph.item_count

    @property
    def light_width(self) -> int:
        """d: how many numbers at the end of a user state are the user's side of the light score; 0 without one."""
        return 0 if self.light_vectors is None else int(self.light_vectors.shape[1])


@dataclass(frozen=True, eq=False)
class UserBatch:
    """B users to search for.

    Attributes:
        states: `float32[B, S]`, one row a user, as the user encoder made it.
        own_items: `int32[B, L]`, items of the users' histories, -1 = padding: further seeds of searches that enter by
            seeds. A scorer that knows who buys again has narrow peaks there, which a walk from elsewhere may miss.
            None: nothing is known of them.

    Raises:
        RequestError: if an array has another dtype or shape, or they disagree on the number of users.
    """

    states: Float32Array
    own_items: Int32Array | None

    def __post_init__(self) -> None:
        states, own = self.states, self.own_items
        if states.ndim != 2 or states.dtype != np.float32:
            raise RequestError(
                f"user_states is {states.dtype}{list(states.shape)}; expected float32[B, S], one row a user"
            )
        if own is not None and (own.ndim != 2 or len(own) != len(states) or own.dtype != np.int32):
            raise RequestError(
                f"own_items is {own.dtype}{list(own.shape)}; expected int32[{len(states)}, L], one row a user"
            )

    def __len__(self) -> int:
        return len(self.states)

    def __getitem__(self, rows: slice | npt.NDArray[np.intp]) -> UserBatch:
        return UserBatch(self.states[rows], None if self.own_items is None else self.own_items[rows])

    @classmethod
    def concatenate(cls, batches: Sequence[UserBatch]) -> UserBatch:
        """Several batches as one, with own items if all of them have some; at least one batch, widths alike."""
        own = [batch.own_items for batch in batches if batch.own_items is not None]
        states = np.concatenate([batch.states for batch in batches])  # [sum of B, S]
        return cls(states, np.concatenate(own) if len(own) == len(batches) else None)
