"""Finds items that no search can reach, whatever its ef and rounds."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from nann.errors import BundleError
from nann.graph import HnswGraph

MAX_UNREACHABLE = 0.05
"""Largest share of the items that no search can reach in a bundle that is made or exported."""
_CHUNK = 65_536
_ADVICE = (
    "index again with a larger m or ef_construction (IndexConfig, `index:` in a training configuration); "
    "`nann tune --repair` links a few such items"
)
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Reachability:
    """Items that are hard or impossible to find; item indices, ascending.

    Attributes:
        unreachable: `int64[n]`, not found even with unlimited ef and rounds.
        no_in_links: `int64[m]`, without links to them on the ground layer. A search may find them on an upper layer.
    """

    unreachable: npt.NDArray[np.int64]
    no_in_links: npt.NDArray[np.int64]

    @classmethod
    def of(cls, graph: HnswGraph) -> Reachability:
        """Follows all links from the entry points."""
        in_degree = np.bincount(graph.layers[0].neighbors, minlength=graph.item_count)
        return cls(np.flatnonzero(~reachable_items(graph)), np.flatnonzero(in_degree == 0))

    @classmethod
    def require(cls, graph: HnswGraph, *, warn: bool = True) -> Reachability:
        """That of a graph to be served; logs a warning, unless it was said before, if some items can't be reached.

        Raises:
            BundleError: if these are more than `MAX_UNREACHABLE` of all.
        """
        found = cls.of(graph)
        missed = len(found.unreachable)
        said = f"no search can reach {missed:,} of the {graph.item_count:,} items ({missed / graph.item_count:.2%})"
        if missed > MAX_UNREACHABLE * graph.item_count:
            raise BundleError(f"{said}; expected at most {MAX_UNREACHABLE:.0%}: {_ADVICE}")
        if missed and warn:
            _log.warning("%s: %s", said, _ADVICE)
        return found

    def summary(self) -> dict[str, Any]:
        """The numbers for a bundle's notes."""
        return {"unreachable_items": len(self.unreachable), "items_without_in_links": len(self.no_in_links)}

    @property
    def orphans(self) -> npt.NDArray[np.int64]:
        """The items of both kinds, `int64[n]`."""
        return np.union1d(self.unreachable, self.no_in_links)


def reachable_items(graph: HnswGraph) -> npt.NDArray[np.bool_]:
    """Whether each item can be reached from the entry points, layer by layer: `bool[N]`."""
    reached = np.zeros(graph.item_count, np.bool_)
    reached[graph.entry_points] = True
    for layer in reversed(graph.layers[: graph.entry_layer + 1]):
        frontier = np.flatnonzero(reached)
        while frontier.size:
            known = reached.copy()
            for start in range(0, frontier.size, _CHUNK):  # the links of a large graph are gigabytes
                reached[layer.links_of(frontier[start : start + _CHUNK])[1]] = True
            frontier = np.flatnonzero(reached & ~known)
    return reached
