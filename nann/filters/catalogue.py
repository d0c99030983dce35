"""Compiles filters to sets of items, and keeps those that were compiled."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nann import item_sets
from nann.errors import FilterError

from .columns import Column, Uint64Array, column_files, load_column
from .parser import parse
from .predicate import Comparison, Group, Negation, Predicate, at
from .recent import Recent

CACHE_BYTES = 64 << 20
"""Compiled sets that are kept: 400 of a corpus of 1.3 million items."""
_TEXT_BYTES = 8 << 20
"""Texts whose normal form is kept."""


class Catalogue:
    """The attributes of N items.

    Args:
        columns: by attribute name.
        item_count: N.
        cache_bytes: how much memory compiled sets may take.
    """

    def __init__(self, columns: Mapping[str, Column], item_count: int, cache_bytes: int = CACHE_BYTES) -> None:
        self.columns = dict(columns)
        self.item_count = item_count
        self._sets: Recent[Uint64Array] = Recent(cache_bytes)
        self._normal_forms: Recent[str] = Recent(_TEXT_BYTES)

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

        A filter that was compiled before, also in other words with the same normal form, is looked up; so is each
        comparison in it.

        Raises:
            FilterError: if it can't be read, names an attribute that there is not, or compares one with a value of
                another type.
        """
        if isinstance(filter, str):
            normal_form = self._normal_forms.get(filter)
            found = None if normal_form is None else self._sets.get(normal_form)
            if found is not None:
                return found
            predicate = parse(filter)
            self._normal_forms.put(filter, predicate.text, len(filter) + len(predicate.text))
        else:
            predicate = filter
        return self._kept(predicate)

    def _kept(self, predicate: Predicate) -> Uint64Array:
        found = self._sets.get(predicate.text)
        if found is None:
            found = self._matching(predicate)
            found.flags.writeable = False
            self._sets.put(predicate.text, found, found.nbytes)
        return found

    def _matching(self, predicate: Predicate) -> Uint64Array:
        if isinstance(predicate, Comparison):
            return self.compared(predicate)
        if isinstance(predicate, Negation):
            return item_sets.invert(self._part(predicate.part), self.item_count)
        assert isinstance(predicate, Group)
        first, *others = predicate.parts
        result = self._part(first).copy()
        for part in others:
            if predicate.operator == "and":
                result &= self._part(part)
            else:
                result |= self._part(part)
        return result

    def _part(self, predicate: Predicate) -> Uint64Array:
        """The items that match a part. Comparisons are kept, as other filters have them too."""
        return self._kept(predicate) if isinstance(predicate, Comparison) else self._matching(predicate)

    def compared(self, comparison: Comparison) -> Uint64Array:
        """The items that match one comparison, `uint64[W]`; its own array, or one that is never written.

        Raises:
            FilterError: as `compile` does.
        """
        return self._column(comparison).matching(comparison)

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
