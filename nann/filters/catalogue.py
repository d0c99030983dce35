"""Compiles filters to sets of items, and keeps those that were compiled."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Any

from nann import item_sets
from nann.errors import FilterError

from .columns import Column, Uint64Array, column_files, load_column
from .parser import parse
from .predicate import Comparison, Group, Negation, Predicate, at

CACHE_BYTES = 64 << 20
"""Compiled sets that are kept: 390 of a corpus of 1.3 million items."""
_TEXTS = 1_024

_parsed = lru_cache(maxsize=_TEXTS)(parse)


class Catalogue:
    """The attributes of N items.

    Args:
        columns: by attribute name.
        item_count: N.
        cache_bytes: how much memory compiled sets may take; the one that was not used for longest goes first.
    """

    def __init__(self, columns: Mapping[str, Column], item_count: int, cache_bytes: int = CACHE_BYTES) -> None:
        self.columns = dict(columns)
        self.item_count = item_count
        self._kept: OrderedDict[str, Uint64Array] = OrderedDict()
        self._limit = cache_bytes // max(8 * item_sets.bitmap_words(item_count), 1)
        self._lock = Lock()

    @classmethod
    def load(cls, folder: Path, attributes: Mapping[str, Any], item_count: int) -> Catalogue:
        """Opens the columns that a bundle's manifest lists.

        Raises:
            BundleError: if a file is not what it has to be.
        """
        columns = {
            name: load_column(folder, entry["column"], entry["type"], item_count) for name, entry in attributes.items()
        }
        return cls(columns, item_count)

    def save(self, folder: Path) -> tuple[dict[str, Any], list[str]]:
        """Writes the columns' files; returns the manifest's `attributes` and the files' names."""
        files, entries = [], {}
        for number, (name, column) in enumerate(self.columns.items()):
            files += column.save(folder, number)
            entries[name] = {"type": column.type, "column": number}
        return entries, files

    @property
    def names(self) -> list[str]:
        """The attributes' names."""
        return list(self.columns)

    def compile(self, filter: str | Predicate) -> Uint64Array:
        """The items that a filter allows, `uint64[W]`, read-only.

        A filter that was compiled before, also in other words with the same normal form, is looked up.

        Raises:
            FilterError: if it can't be read, names an attribute that there is not, or compares one with a value of
                another type.
        """
        predicate = _parsed(filter) if isinstance(filter, str) else filter
        with self._lock:
            found = self._kept.get(predicate.text)
            if found is not None:
                self._kept.move_to_end(predicate.text)
                return found
        found = self._matching(predicate)
        found.flags.writeable = False
        with self._lock:
            self._kept[predicate.text] = found
            while len(self._kept) > self._limit:
                self._kept.popitem(last=False)
        return found

    def _matching(self, predicate: Predicate) -> Uint64Array:
        if isinstance(predicate, Comparison):
            return self._column(predicate).matching(predicate)
        if isinstance(predicate, Negation):
            return item_sets.invert(self._matching(predicate.part), self.item_count)
        assert isinstance(predicate, Group)
        first, *others = predicate.parts
        result = self._matching(first).copy()
        for part in others:
            if predicate.operator == "and":
                result &= self._matching(part)
            else:
                result |= self._matching(part)
        return result

    def _column(self, comparison: Comparison) -> Column:
        column = self.columns.get(comparison.attribute)
        if column is None:
            raise FilterError(
                f"{at(comparison.position)}got {comparison.attribute!r}; expected an attribute of the items: "
                f"{', '.join(self.columns)}"
            )
        return column


def attribute_files(attributes: Mapping[str, Any]) -> list[str]:
    """Names of the files of a manifest's `attributes`."""
    return [name for entry in attributes.values() for name in column_files(entry["column"], entry["type"])]
