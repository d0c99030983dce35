"""Attributes of some items that differ from those of the corpus below: layers of columns over a bundle's.

A change makes a small layer on top. Layers of similar size are merged, so that many changes make few layers, and a
change costs little beside the many that came before. A layer that was made never changes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from nann import item_sets
from nann.errors import RequestError
from nann.filters import Catalogue
from nann.filters.columns import Column, Uint64Array
from nann.filters.predicate import Comparison
from nann.filters.recent import Recent
from nann.kernels import Int32Array

from .values import checked, column_of

_RATIO = 4
"""A layer is at least so many times as large as the one above it."""
_CACHE_BYTES = 4 << 20
"""Compiled sets that a `LiveCatalogue` keeps, which lives until the next change, and a layer, which lives longer."""
_SMALL = 4_096
"""A layer of fewer items keeps no sets."""

_NONE = object()
_BITS = np.uint64(1) << np.arange(64, dtype=np.uint64)


class Layer:
    """One attribute of M of the items.

    Args:
        kind: the attribute's type.
        values: `checked` values by item; None: no value.

    Attributes:
        values: the same.
    """

    def __init__(self, kind: str, values: Mapping[int, Any]) -> None:
        self.values = values
        self._items = np.fromiter(values, np.int32, len(values))
        self._column = column_of(kind, list(values.values()))
        self._sets: Recent[Uint64Array] = Recent(_CACHE_BYTES)

    def apply(self, found: Uint64Array, comparison: Comparison) -> None:
        """Makes the set of items that match, `uint64[W]`, say what this layer says of its items."""
        if len(self._items) < _SMALL:
            _clear(found, self._items)
            _add(found, self._matching(comparison))
        else:
            found &= self._kept("others", len(found), lambda: ~_add(np.zeros_like(found), self._items))
            text = str(comparison)
            found |= self._kept(text, len(found), lambda: _add(np.zeros_like(found), self._matching(comparison)))

    def _matching(self, comparison: Comparison) -> Int32Array:
        return self._items[item_sets.members(self._column.matching(comparison))]

    def _kept(self, name: str, words: int, make: Callable[[], Uint64Array]) -> Uint64Array:
        key = f"{words} {name}"
        if (item_set := self._sets.get(key)) is None:
            item_set = make()
            self._sets.put(key, item_set, item_set.nbytes)
        return item_set


def _clear(item_set: Uint64Array, items: Int32Array) -> None:
    np.bitwise_and.at(item_set, items >> 6, ~_BITS[items & 63])


def _add(item_set: Uint64Array, items: Int32Array) -> Uint64Array:
    np.bitwise_or.at(item_set, items >> 6, _BITS[items & 63])
    return item_set


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
                    layers[place] = Layer(self._types[name], rest)
        for values in self._new.values():
            values.pop(item, None)

    def moved(self, numbers: Mapping[int, int]) -> Overrides:
        """The same with other numbers of the items; those that get none are left out."""
        other = Overrides({})
        other._types = self._types
        for name in {**self._layers, **self._new}:
            values: dict[int, Any] = {}
            for own in (*(layer.values for layer in self._layers.get(name, ())), self._new.get(name, {})):
                values.update(own)
            if kept := {numbers[item]: value for item, value in values.items() if item in numbers}:
                other._new[name] = kept
        return other

    def layers(self) -> dict[str, tuple[Layer, ...]]:
        """The layers of each changed attribute, lowest first; they stay what they are."""
        for name, values in self._new.items():
            layers = self._layers.setdefault(name, [])
            while layers and len(layers[-1].values) < _RATIO * len(values):
                values = {**layers.pop().values, **values}
            layers.append(Layer(self._types[name], values))
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

    @property
    def values(self) -> dict[str, dict[int, Any]]:
        """By attribute the values that the layers give to items; None: no value."""
        return {
            name: {item: value for layer in layers for item, value in layer.values.items()}
            for name, layers in self._layers.items()
        }

    def compared(self, comparison: Comparison) -> Uint64Array:
        """See `Catalogue`."""
        found = self._below(comparison)
        layers = self._layers.get(comparison.attribute, ())
        if layers:
            found = found.copy()
        for layer in layers:
            layer.apply(found, comparison)
        return found
