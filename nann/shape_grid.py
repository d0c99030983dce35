"""The padding grid: the few shapes (B, C) at which the scorer is called on a GPU.

TensorRT optimization profiles, CUDA graphs, `graph_spec` and `model_warmup` in Triton's configuration, and the padding
of beam_retrieval's calls all follow from one `ShapeGrid`, which the bundle's manifest holds (`nann plan-shapes`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from nann.errors import ConfigError, ScorerError
from nann.signature import PADDING_ITEM

MAX_BATCH_SIZE = 16
"""Users of one scorer call: `max_batch_size` of every model's configuration (a test compares them)."""
WIDTH_MULTIPLE = 64
"""Planned widths are multiples of this: GPU kernels work on whole tiles, so that nearby widths cost the same."""

Int32Array = npt.NDArray[np.int32]
Int64Array = npt.NDArray[np.int64]


@dataclass(frozen=True)
class ShapeGrid:
    """The shapes of scorer calls: every batch size with every width.

    Attributes:
        batch_sizes: B, users of a call, ascending.
        widths: C, candidates of a user, ascending.
    """

    batch_sizes: tuple[int, ...]
    widths: tuple[int, ...]

    def __post_init__(self) -> None:
        for name, sizes in (("batch_sizes", self.batch_sizes), ("widths", self.widths)):
            if not sizes or sizes[0] < 1 or any(low >= high for low, high in pairwise(sizes)):
                raise ConfigError(
                    f"{name} of the padding grid are {list(sizes)}; expected at least one, each at least 1, ascending"
                )
        if self.batch_sizes[-1] != MAX_BATCH_SIZE:
            raise ConfigError(
                f"batch_sizes of the padding grid end with {self.batch_sizes[-1]}; "
                f"expected {MAX_BATCH_SIZE}, the models' max_batch_size"
            )

    @classmethod
    def of_manifest(cls, manifest: Mapping[str, Any]) -> ShapeGrid:
        """The grid that a bundle's or a plan's manifest states; `DEFAULT_GRID` where it states none."""
        stated = manifest.get("shape_grid")
        return cls(tuple(stated["batch_sizes"]), tuple(stated["widths"])) if stated else DEFAULT_GRID

    def to_manifest(self) -> dict[str, list[int]]:
        """What `of_manifest` reads."""
        return {"batch_sizes": list(self.batch_sizes), "widths": list(self.widths)}

    @property
    def points(self) -> list[tuple[int, int]]:
        """All (B, C), by width first: the order in which shapes are captured and warmed up."""
        return [(users, width) for width in self.widths for users in self.batch_sizes]

    @property
    def width_ranges(self) -> list[tuple[int, int]]:
        """(smallest, largest) C that each width serves; together they leave no gap from 1 to the last width."""
        return [(low + 1, high) for low, high in pairwise((0, *self.widths))]

    def batch_size(self, users: int) -> int:
        """The smallest B for this many users.

        Raises:
            ScorerError: if there are more users than the largest B.
        """
        size = next((size for size in self.batch_sizes if size >= users), None)
        if size is None:
            raise ScorerError(f"a scorer call has {users} users; expected at most {self.batch_sizes[-1]}")
        return size

    def width(self, candidates: int) -> int:
        """The smallest C for this many candidates, the largest C if there are more than it."""
        return next((width for width in self.widths if width >= candidates), self.widths[-1])

    def padded(self, candidates: Int32Array) -> Iterator[tuple[slice, Int32Array]]:
        """Cuts one call into calls of the grid's shapes: more than one only above the largest width.

        Args:
            candidates: `int32[A, C]`.

        Yields:
            A range of columns of `candidates`, and an `int32[B, C']` that starts with them and is -1 elsewhere.
        """
        users, width = candidates.shape
        batch_size = self.batch_size(users)
        for start in range(0, width, self.widths[-1]):
            columns = slice(start, min(start + self.widths[-1], width))
            part = np.full((batch_size, self.width(columns.stop - start)), PADDING_ITEM, np.int32)
            part[:users, : columns.stop - start] = candidates[:, columns]
            yield columns, part

    def padded_cells(self, calls: Int64Array) -> Int64Array:
        """Scores that the grid's calls compute for each call (users, width, ...) of `int64[n, >= 2]`: `int64[n]`."""
        users, widths = calls[:, 0], calls[:, 1]
        whole, rest = np.divmod(widths, self.widths[-1])
        columns = whole * self.widths[-1] + np.where(rest > 0, _round_up(rest, self.widths), 0)
        cells: Int64Array = _round_up(users, self.batch_sizes) * columns
        return cells


def _round_up(values: Int64Array, sizes: Sequence[int]) -> Int64Array:
    sizes_ = np.array(sizes, np.int64)
    rounded: Int64Array = sizes_[np.searchsorted(sizes_, values)]
    return rounded


DEFAULT_GRID = ShapeGrid((1, 2, 4, 8, 16), (64, 256, 512, 1024, 2048, 4096, 8192))
"""For a bundle whose shapes were not planned."""


def plan_grid(
    calls: Int64Array,
    width_count: int,
    batch_sizes: tuple[int, ...] = DEFAULT_GRID.batch_sizes,
    multiple: int = WIDTH_MULTIPLE,
) -> ShapeGrid:
    """The grid of `width_count` widths that computes the fewest scores for these calls: exact dynamic programming.

    With the calls' widths rounded up to `multiple` and sorted, v_1 < ... < v_m, and w_j the padded users of all
    calls of width v_j, the best cost of the first j widths with k grid widths is

        cost(k, j) = min over i < j of cost(k - 1, i) + v_j (w_{i+1} + ... + w_j)

    Args:
        calls: `int64[n, >= 2]`, users and width of each scorer call, n >= 1.
        width_count: how many widths; fewer where the calls have fewer distinct ones.
        batch_sizes: of the grid.
        multiple: widths are multiples of this.

    Raises:
        ConfigError: if there are no calls, or `width_count` is below 1.
    """
    if len(calls) == 0 or width_count < 1:
        raise ConfigError(f"got {len(calls)} scorer calls and {width_count} shapes; expected at least 1 of each")
    rounded = -(-calls[:, 1] // multiple) * multiple
    values, position = np.unique(rounded, return_inverse=True)
    weights = np.bincount(position.ravel(), _round_up(calls[:, 0], batch_sizes)).astype(np.int64)
    before = np.concatenate([[0], weights.cumsum()])  # [m + 1]
    layers = min(width_count, len(values))
    cost = np.full(len(values) + 1, np.iinfo(np.int64).max // 2)
    cost[0] = 0
    chosen = np.zeros((layers, len(values) + 1), np.intp)
    for k in range(layers):
        last, cost = cost, np.full_like(cost, cost.max())
        for j in range(1, len(values) + 1):
            each = last[:j] + values[j - 1] * (before[j] - before[:j])
            chosen[k, j] = each.argmin()
            cost[j] = each[chosen[k, j]]
    widths, end = [], len(values)
    for k in range(layers - 1, -1, -1):
        widths.append(int(values[end - 1]))
        end = int(chosen[k, end])
    return ShapeGrid(batch_sizes, tuple(reversed(widths)))
