"""The search's inner loops on a batch of users: mark items as visited, expand a frontier, keep the best (section 7).

`light_walk` is a complete search with an inner product as the score; it is not in the paper (`nann.light_walk`).

Searches use `NATIVE`, the C++ kernel. `NUMPY` is the specification that tests compare it with. Both keep the contract
of `Kernels` and give the same results bit for bit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from nann import kernels_numpy
from nann.kernel_checks import check, check_at_least, check_expansion, check_light

try:
    from nann import _kernels
except ImportError as error:
    raise ImportError(
        "nann._kernels, the native kernel, is missing or was built for another Python; "
        "run `pip install .` in the repository (it needs a C++ compiler)"
    ) from error

Int8Array = npt.NDArray[np.int8]
Int16Array = npt.NDArray[np.int16]
Int32Array = npt.NDArray[np.int32]
Float32Array = npt.NDArray[np.float32]
Int64Array = npt.NDArray[np.int64]
Uint64Array = npt.NDArray[np.uint64]
BoolArray = npt.NDArray[np.bool_]


class Implementation(Protocol):
    """The functions that an implementation provides; `Kernels` documents them."""

    def mark(self, visited: Uint64Array, items: Int32Array) -> None:
        """`Kernels.mark`, arrays already checked."""

    def count(self, item_sets: Uint64Array) -> Int64Array:
        """`Kernels.count`, arrays already checked."""

    def expand(
        self, indptr: Int32Array, neighbors: Int32Array, visited: Uint64Array, frontier: Int32Array, threads: int
    ) -> Int32Array:
        """`Kernels.expand`, arrays already checked."""

    def expand_through(
        self,
        indptr: Int32Array,
        neighbors: Int32Array,
        visited: Uint64Array,
        blocked: Uint64Array,
        frontier: Int32Array,
        reach: int,
        threads: int,
    ) -> Int32Array:
        """`Kernels.expand_through`, arrays already checked."""

    def merge_top(
        self,
        items: Int32Array,
        scores: Float32Array,
        new_items: Int32Array,
        new_scores: Float32Array,
        ef: Int32Array,
        threads: int,
    ) -> tuple[Int32Array, Float32Array, BoolArray]:
        """`Kernels.merge_top`, arrays already checked."""

    def light_walk(
        self,
        indptr: Int32Array,
        neighbors: Int32Array,
        entry_points: Int32Array,
        vectors: Float32Array,
        users: Float32Array,
        width: int,
        ef: Int32Array,
        steps: Int32Array,
        blocked: Uint64Array | None,
        threads: int,
    ) -> tuple[Int32Array, Float32Array, Int32Array]:
        """`Kernels.light_walk`, arrays already checked."""

    def light_scan(
        self, codes: Int8Array, users: Int16Array, blocked: Uint64Array, counts: Int32Array, threads: int
    ) -> tuple[Int32Array, Int32Array]:
        """`Kernels.light_scan`, arrays already checked."""


@dataclass(frozen=True)
class Kernels:
    """One implementation, behind argument checks that all implementations share.

    Arrays are NumPy arrays, C-contiguous and of exactly the documented dtype; none is converted or copied. B is the
    number of users; row b of every array belongs to user b. The native implementation releases the GIL.

    Attributes:
        name: "native" or "numpy".
        implementation: its functions.
    """

    name: str
    implementation: Implementation

    def mark(self, visited: Uint64Array, items: Int32Array) -> None:
        """Marks items as visited.

        Args:
            visited: `uint64[B, W]` bitmap, changed in place; item v is bit v % 64 of word v // 64.
            items: `int32[B, X]` item indices below 64 W, -1 ignored.

        Raises:
            TypeError: an array of another dtype, or not contiguous, or read-only where it is written.
            ValueError: an array of another shape.
            IndexError: an item out of range.
        """
        check("visited", visited, np.uint64, 2, writeable=True)
        check("items", items, np.int32, 2, rows=len(visited))
        self.implementation.mark(visited, items)

    def count(self, item_sets: Uint64Array) -> Int64Array:
        """How many bits are set in each row.

        Args:
            item_sets: `uint64[B, W]` bitmaps (`nann.item_sets`).

        Returns:
            `int64[B]`.

        Raises:
            TypeError: an array of another dtype, or not contiguous.
            ValueError: an array of another shape.
        """
        check("item_sets", item_sets, np.uint64, 2)
        return self.implementation.count(item_sets)

    def expand(
        self, indptr: Int32Array, neighbors: Int32Array, visited: Uint64Array, frontier: Int32Array, threads: int = 1
    ) -> Int32Array:
        """Unvisited neighbours of the frontier, which become visited.

        One pass over the neighbour lists, with test-and-set on the bitmap. After an error some may be marked.

        Args:
            indptr: `int32[N + 1]` of one layer.
            neighbors: `int32[E]` of that layer, all in 0..N-1.
            visited: `uint64[B, W]` bitmap, W >= N / 64, changed in place.
            frontier: `int32[B, F]` items to expand, -1 ignored.
            threads: how many threads share the users.

        Returns:
            `int32[B, C]`, each row in order of first discovery and without duplicates, padded with -1; C is the
            largest count of the batch and may be 0.

        Raises:
            TypeError: an array of another dtype, or not contiguous, or read-only where it is written.
            ValueError: an array of another shape.
            IndexError: an item, or an indptr that was followed, out of range.
        """
        check_expansion(indptr, neighbors, visited, frontier, threads)
        return self.implementation.expand(indptr, neighbors, visited, frontier, threads)

    def expand_through(
        self,
        indptr: Int32Array,
        neighbors: Int32Array,
        visited: Uint64Array,
        blocked: Uint64Array,
        frontier: Int32Array,
        reach: int,
        threads: int = 1,
    ) -> Int32Array:
        """`expand` where items are blocked: unvisited neighbours that are not, and what lies behind those that are.

        A blocked neighbour becomes visited and is a bridge: its own neighbours are found too, if they are neither
        visited nor blocked, and become visited. With F items in a user's frontier, at most `reach` F bridges are
        crossed, in order of first discovery, and none once `reach` F items are found.

        Args:
            indptr: `int32[N + 1]` of one layer.
            neighbors: `int32[E]` of that layer, all in 0..N-1.
            visited: `uint64[B, W]` bitmap, W >= N / 64, changed in place.
            blocked: `uint64[B, V]` bitmap, V >= N / 64.
            frontier: `int32[B, F]` items to expand, blocked or not, -1 ignored.
            reach: as above; at least 0.
            threads: how many threads share the users.

        Returns:
            `int32[B, C]`, padded with -1, without duplicates: first the frontier's neighbours, then those of the
            bridges, each in order of first discovery. A row of `blocked` without bits gives what `expand` gives.

        Raises:
            TypeError: an array of another dtype, or not contiguous, or read-only where it is written.
            ValueError: an array of another shape.
            IndexError: an item, or an indptr that was followed, out of range.
        """
        check_expansion(indptr, neighbors, visited, frontier, threads)
        check("blocked", blocked, np.uint64, 2, rows=len(visited))
        check_at_least("reach", reach, 0)
        return self.implementation.expand_through(indptr, neighbors, visited, blocked, frontier, reach, threads)

    def merge_top(
        self,
        items: Int32Array,
        scores: Float32Array,
        new_items: Int32Array,
        new_scores: Float32Array,
        ef: Int32Array,
        threads: int = 1,
    ) -> tuple[Int32Array, Float32Array, BoolArray]:
        """The `ef` best of two scored lists: best first, equal scores by smaller item.

        An item in both lists is twice in the result; searches avoid that, since they score an item once per layer.

        Args:
            items: `int32[B, R]` in any order, -1 ignored.
            scores: `float32[B, R]`; infinities are scores like any other, NaN is not.
            new_items: `int32[B, C]`, -1 ignored.
            new_scores: `float32[B, C]`.
            ef: `int32[B]`, how many each user keeps; at least 1.
            threads: how many threads share the users.

        Returns:
            `int32[B, E]` items padded with -1, `float32[B, E]` scores padded with `PADDING_SCORE`, and `bool[B, E]`,
            true where an item came from `new_items`. E = min(max(ef), R + C).

        Raises:
            TypeError: an array of another dtype, or not contiguous.
            ValueError: an array of another shape, an ef below 1, or an item whose score is NaN.
            IndexError: an item below -1.
        """
        check("items", items, np.int32, 2)
        check("scores", scores, np.float32, 2)
        check("new_items", new_items, np.int32, 2, rows=len(items))
        check("new_scores", new_scores, np.float32, 2)
        check("ef", ef, np.int32, 1, rows=len(items))
        for name, ids, values in (("", items, scores), ("new_", new_items, new_scores)):
            if ids.shape != values.shape:
                raise ValueError(
                    f"{name}items has shape {list(ids.shape)} and {name}scores {list(values.shape)}; "
                    "expected one score per item"
                )
        check_at_least("threads", threads, 1)
        return self.implementation.merge_top(items, scores, new_items, new_scores, ef, threads)

    def light_walk(
        self,
        indptr: Int32Array,
        neighbors: Int32Array,
        entry_points: Int32Array,
        vectors: Float32Array,
        users: Float32Array,
        width: int,
        ef: Int32Array,
        steps: Int32Array,
        blocked: Uint64Array | None = None,
        threads: int = 1,
    ) -> tuple[Int32Array, Float32Array, Int32Array]:
        """Best-first search on the ground layer under the score <user, vector>, from all entry points.

        W holds the ef best items scored so far. A step expands the best unexpanded item of W. The walk ends when W has
        none, or after `steps` steps. Inner products are summed in a fixed order, so that all implementations give the
        same bits.

        Blocked items are scored and expanded as the others, but W never holds them: the walk goes through them while
        they are better than the worst of a full W. If `steps` end it before, it has no result.

        Args:
            indptr: `int32[N + 1]` of the ground layer.
            neighbors: `int32[E]` of the ground layer.
            entry_points: `int32[E0]`, distinct; all of them are scored.
            vectors: `float32[N, d]`.
            users: `float32[B, d]`.
            width: columns of the results; a longer W is cut off.
            ef: `int32[B]`, length of W; at least 1.
            steps: `int32[B]`, the most items to expand.
            blocked: `uint64[B, V]` bitmap, V >= N / 64; None: no item is.
            threads: how many threads share the users.

        Returns:
            `int32[B, width]` items, best first, equal scores by smaller item, padded with -1; `float32[B, width]`
            scores padded with `PADDING_SCORE`; `int32[B]`, how many were scored.

        Raises:
            TypeError: an array of another dtype, or not contiguous.
            ValueError: an array of another shape, an ef below 1, or a score that is NaN.
            IndexError: an item, or an indptr that was followed, out of range.
        """
        check_light(vectors, users)
        check("indptr", indptr, np.int32, 1, rows=len(vectors) + 1, each="item and one more")
        check("neighbors", neighbors, np.int32, 1)
        check("entry_points", entry_points, np.int32, 1)
        check("ef", ef, np.int32, 1, rows=len(users))
        check("steps", steps, np.int32, 1, rows=len(users))
        check_at_least("width", width, 0)
        check_at_least("threads", threads, 1)
        if blocked is not None:
            check("blocked", blocked, np.uint64, 2, rows=len(users))
        return self.implementation.light_walk(
            indptr, neighbors, entry_points, vectors, users, width, ef, steps, blocked, threads
        )

    def light_scan(
        self, codes: Int8Array, users: Int16Array, blocked: Uint64Array, counts: Int32Array, threads: int = 1
    ) -> tuple[Int32Array, Int32Array]:
        """The items with the greatest inner products of all that are not blocked (`nann.light_codes`).

        Args:
            codes: `int8[N, D]`, D a multiple of 16.
            users: `int16[B, D]`.
            blocked: `uint64[B, V]` bitmap, V >= N / 64.
            counts: `int32[B]`, how many items each user gets; none if below 1.
            threads: how many threads share the items.

        Returns:
            `int32[B, max(counts)]` items, the greatest product first, equal ones by smaller item, padded with -1, and
            as many products, padded with the smallest int32.

        Raises:
            TypeError: an array of another dtype, or not contiguous.
            ValueError: an array of another shape.
        """
        check("codes", codes, np.int8, 2)
        check("users", users, np.int16, 2)
        check("blocked", blocked, np.uint64, 2, rows=len(users))
        check("counts", counts, np.int32, 1, rows=len(users))
        check_at_least("threads", threads, 1)
        return self.implementation.light_scan(codes, users, blocked, counts, threads)


NATIVE = Kernels("native", _kernels)
"""The C++ kernel."""
NUMPY = Kernels("numpy", kernels_numpy)
"""The specification, which is slow."""
