"""The HNSW graph as CSR arrays, one pair per layer (paper, section 4: "ragged" neighbour lists)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nann.array_files import load_array
from nann.errors import BundleError, DataError

LEVELS_FILE = "levels.npy"
_MOST_LINKS = int(np.iinfo(np.int32).max)


@dataclass(frozen=True)
class Layer:
    """Neighbour lists of one layer; items that are not on the layer have empty lists.

    Attributes:
        indptr: `int32[N + 1]`, item v's neighbours are `neighbors[indptr[v]:indptr[v + 1]]`.
        neighbors: `int32[E]` item indices.
    """

    indptr: npt.NDArray[np.int32]
    neighbors: npt.NDArray[np.int32]

    def neighbors_of(self, item: int) -> npt.NDArray[np.int32]:
        """Neighbours of one item, `int32[degree]`."""
        return self.neighbors[self.indptr[item] : self.indptr[item + 1]]

    def links_of(self, items: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int32]]:
        """All links of `items` (`int64[n]`): the place of their source in `items` and their end, `[links]` each."""
        degrees = (self.indptr[items + 1] - self.indptr[items]).astype(np.int64)
        places = np.repeat(np.arange(len(items)), degrees)
        offsets = np.arange(len(places)) - np.repeat(np.cumsum(degrees) - degrees, degrees)
        return places, self.neighbors[self.indptr[items][places] + offsets]

    def with_links(self, sources: npt.NDArray[np.int64], ends: npt.NDArray[np.int64]) -> Layer:
        """The layer with more links (`int64[n]` each), appended to the lists of their sources."""
        by_source = np.argsort(sources, kind="stable")
        neighbors = np.insert(self.neighbors, self.indptr[1:][sources[by_source]], ends[by_source].astype(np.int32))
        return Layer.of(np.diff(self.indptr) + np.bincount(sources, minlength=len(self.indptr) - 1), neighbors)

    @classmethod
    def of(cls, degrees: npt.NDArray[np.integer[Any]], neighbors: npt.NDArray[np.int32]) -> Layer:
        """A layer from all lists one after the other, and the length of each, `int[N]`.

        Raises:
            DataError: if there are more links than the format holds.
        """
        indptr = np.append(0, np.cumsum(degrees, dtype=np.int64))
        if indptr[-1] > _MOST_LINKS:
            raise DataError(f"the graph has {indptr[-1]} links; the format holds at most {_MOST_LINKS}: lower M")
        return cls(indptr.astype(np.int32), neighbors)


@dataclass(frozen=True)
class HnswGraph:
    """All layers of an HNSW graph, ground layer first.

    Attributes:
        layers: `layers[0]` is the ground layer.
        levels: `uint8[N]`, the highest layer each item is on.
        entry_layer: the layer whose items are all scored at the start (the paper's top used layer L = 2).
        hnsw_entry_point: the item at which the original HNSW search starts, on the highest layer.
    """

    layers: tuple[Layer, ...]
    levels: npt.NDArray[np.uint8]
    entry_layer: int
    hnsw_entry_point: int

    @property
    def item_count(self) -> int:
        """N."""
        return int(self.levels.shape[0])

    @cached_property
    def entry_points(self) -> npt.NDArray[np.int32]:
        """`int32[E]`, ascending: every item of the entry layer."""
        return np.flatnonzero(self.levels >= self.entry_layer).astype(np.int32)

    @cached_property
    def mean_degrees(self) -> tuple[float, ...]:
        """How many neighbours an item has on each layer, ground first."""
        return tuple(len(layer.neighbors) / size for layer, size in zip(self.layers, self.layer_sizes, strict=True))

    @cached_property
    def layer_sizes(self) -> tuple[int, ...]:
        """How many items each layer holds, ground first."""
        return tuple(int(np.count_nonzero(self.levels >= layer)) for layer in range(len(self.layers)))

    def validate(self) -> None:
        """Checks every index, so that searches can rely on them.

        Raises:
            BundleError: naming the array and what is wrong with it.
        """
        if not self.layers:
            raise BundleError("the graph has no layers; expected at least the ground layer")
        if not 0 <= self.entry_layer < len(self.layers):
            raise BundleError(f"entry_layer is {self.entry_layer}; the graph has layers 0 to {len(self.layers) - 1}")
        if not 0 <= self.hnsw_entry_point < self.item_count:
            raise BundleError(f"hnsw_entry_point is {self.hnsw_entry_point}; expected an item below {self.item_count}")
        for number, layer in enumerate(self.layers):
            _validate_layer(number, layer, self.levels)
        if self.entry_points.size == 0:
            raise BundleError(f"layer {self.entry_layer}, the entry layer, has no items")

    def save(self, folder: Path) -> list[str]:
        """Writes the arrays into `folder`; returns the file names."""
        np.save(folder / LEVELS_FILE, self.levels, allow_pickle=False)
        for number, layer in enumerate(self.layers):
            indptr_file, neighbors_file = layer_files(number)
            np.save(folder / indptr_file, layer.indptr, allow_pickle=False)
            np.save(folder / neighbors_file, layer.neighbors, allow_pickle=False)
        return graph_files(len(self.layers))

    @classmethod
    def load(cls, folder: Path, layer_count: int, entry_layer: int, hnsw_entry_point: int) -> HnswGraph:
        """Opens the arrays read-only and memory-mapped, so that processes share them through the page cache."""
        layers = tuple(
            Layer(*(load_array(folder / name, np.int32, 1) for name in layer_files(number)))
            for number in range(layer_count)
        )
        return cls(layers, load_array(folder / LEVELS_FILE, np.uint8, 1), entry_layer, hnsw_entry_point)


def layer_files(number: int) -> tuple[str, str]:
    """File names of one layer: indptr, neighbors."""
    return f"layer{number}.indptr.npy", f"layer{number}.neighbors.npy"


def graph_files(layer_count: int) -> list[str]:
    """File names of a whole graph."""
    return [LEVELS_FILE, *(name for number in range(layer_count) for name in layer_files(number))]


def _validate_layer(number: int, layer: Layer, levels: npt.NDArray[np.uint8]) -> None:
    indptr, neighbors = layer.indptr, layer.neighbors
    if indptr.shape != (levels.shape[0] + 1,):
        raise BundleError(f"layer {number}: indptr has shape {indptr.shape}; expected ({levels.shape[0] + 1},)")
    if indptr[0] != 0 or indptr[-1] != neighbors.shape[0] or np.any(indptr[1:] < indptr[:-1]):
        raise BundleError(f"layer {number}: indptr does not rise from 0 to {neighbors.shape[0]}, the neighbour count")
    if neighbors.size and (neighbors.min() < 0 or neighbors.max() >= levels.shape[0]):
        raise BundleError(f"layer {number}: a neighbour is outside 0..{levels.shape[0] - 1}")
    if number and (np.any(levels[neighbors] < number) or np.any(np.diff(indptr)[levels < number] > 0)):
        raise BundleError(f"layer {number}: an item of a lower level has or is a neighbour")
