"""Attributes of some items that differ from those of the corpus below: layers of columns over a bundle's.

A change makes a small layer on top. Layers of similar size are merged, so that many changes make few layers, and a
change costs little beside the many that came before. A layer that was made never changes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nann import item_sets
from nann.errors import RequestError
from nann.filters import Catalogue
from nann.filters.columns import Column, Uint64Array
from nann.filters.predicate import Comparison
from nann.kernels import Int32Array

from .values import checked, column_of

_RATIO = 4
"""A layer is at least so many times as large as the one above it."""
_CACHE_BYTES = 4 << 20
"""Compiled sets that a `LiveCatalogue` keeps: it lives until the next change."""

_NONE = object()
_BITS = np.uint64(1) << np.arange(64, dtype=np.uint64)


@dataclass(frozen=True, eq=False)
class Layer:
    """One attribute of M of the items.

    Attributes:
        values: by item; None: no value.
        items: `int32[M]`, their items.
        column: of M items.
    """

    values: Mapping[int, Any]
    items: Int32Array
    column: Column

    @classmethod
    def of(cls, kind: str, values: Mapping[int, Any]) -> Layer:
        """From `checked` values of an attribute of this type."""
        return cls(values, np.fromiter(values, np.int32, len(values)), column_of(kind, list(values.values())))

    def apply(self, found: Uint64Array, comparison: Comparison) -> None:
        """Makes the set of items that match say what this layer says of its items."""
        np.bitwise_and.at(found, self.items >> 6, ~_BITS[self.items & 63])
        matching = self.items[item_sets.members(self.column.matching(comparison))]
        np.bitwise_or.at(found, matching >> 6, _BITS[matching & 63])


class Overrides:
    """The changed attributes of some items.

    Args:
        columns: of the corpus below, which say the attributes' types.
    """

    def __init__(self, columns: Mapping[str, Column]) -> None:
        self._types = {name: column.type for name, column in columns.items()}
        self._layers: dict[str, list[Layer]] = {}
        self._new: dict[str, dict[int, Any]] = {}

    def set(self, item: int, attributes: Mapping[str, Any]) -> int:
        """Changes attributes of an item; returns how many of them the corpus below does not have, or not so."""
        known = {
            name: found for name, value in attributes.items() if (found := self._checked(name, value)) is not _NONE
        }
        for name, value in known.items():
            self._new.setdefault(name, {})[item] = value
        return len(attributes) - len(known)

    def _checked(self, name: str, value: Any) -> Any:
        try:
            return checked(name, self._types[name], value)
        except (KeyError, RequestError):
            return _NONE

    def of(self, item: int) -> dict[str, Any]:
        """The changed attributes of an item."""
        own = {}
        for name in self._types:
            for values in (self._new.get(name, {}), *(layer.values for layer in reversed(self._layers.get(name, ())))):
                if item in values:
                    own[name] = values[item]
                    break
        return own

    def forget(self, item: int) -> None:
        """Makes all attributes of an item those of the corpus below again."""
        for name, layers in self._layers.items():
            for place, layer in enumerate(layers):
                if item in layer.values:
                    rest = {other: value for other, value in layer.values.items() if other != item}
                    layers[place] = Layer.of(self._types[name], rest)
        for values in self._new.values():
            values.pop(item, None)

    def layers(self) -> dict[str, tuple[Layer, ...]]:
        """The layers of each changed attribute, lowest first; they stay what they are."""
        for name, values in self._new.items():
            layers = self._layers.setdefault(name, [])
            while layers and len(layers[-1].values) < _RATIO * len(values):
                values = {**layers.pop().values, **values}
            layers.append(Layer.of(self._types[name], values))
        self._new = {}
        return {name: tuple(layers) for name, layers in self._layers.items()}


class LiveCatalogue(Catalogue):
    """The attributes of N items: those of a corpus below, and layers over it.

    Args:
        columns: of the corpus below; their names and types count.
        item_count: N.
        below: the items that match a comparison there, `uint64[W]`; it is not written to.
        layers: by attribute, lowest first.
    """

    def __init__(
        self,
        columns: Mapping[str, Column],
        item_count: int,
        below: Callable[[Comparison], Uint64Array],
        layers: Mapping[str, Sequence[Layer]],
    ) -> None:
        super().__init__(columns, item_count, _CACHE_BYTES)
        self._below = below
        self._layers = layers

    def compared(self, comparison: Comparison) -> Uint64Array:
        """See `Catalogue`."""
        found = self._below(comparison)
        layers = self._layers.get(comparison.attribute, ())
        if layers:
            found = found.copy()
        for layer in layers:
            layer.apply(found, comparison)
        return found
