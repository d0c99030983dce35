"""Attributes of N items as columns of a bundle, memory-mapped, and the items that match a comparison with one.

Files of a column, `attributeC.` and then:

    category, categories   values.txt, indptr.npy int64[V + 1], items.npy int32[P]: the items of each value
    integer, number        values.npy int64[K] or float64[K], ascending; items.npy int32[K]: the item of each
    flag                   flags.npy uint64[2, W]: the items for which it is false, and true, as sets
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
import numpy.typing as npt

from nann import item_sets
from nann.array_files import load_array
from nann.errors import BundleError, FilterError

from .predicate import NEGATED, ORDERING, Comparison, Value, at, is_number, name_text, value_text
from .vocabulary import Vocabulary

Int32Array = npt.NDArray[np.int32]
Int64Array = npt.NDArray[np.int64]
Uint64Array = npt.NDArray[np.uint64]

CATEGORY, CATEGORIES, INTEGER, NUMBER, FLAG = TYPES = ("category", "categories", "integer", "number", "flag")
_FILES = {
    CATEGORY: ("values.txt", "indptr.npy", "items.npy"),
    CATEGORIES: ("values.txt", "indptr.npy", "items.npy"),
    INTEGER: ("values.npy", "items.npy"),
    NUMBER: ("values.npy", "items.npy"),
    FLAG: ("flags.npy",),
}
_NUMBER_TYPES: Mapping[str, type] = {INTEGER: np.int64, NUMBER: np.float64}


class Column(Protocol):
    """One attribute of N items."""

    @property
    def type(self) -> str:
        """One of `TYPES`."""

    def save(self, folder: Path, number: int) -> list[str]:
        """Writes the files of column `number` and returns their names."""

    def matching(self, comparison: Comparison) -> Uint64Array:
        """The items that match, `uint64[W]`; its own array, or one that is never written.

        Raises:
            FilterError: if the comparison is none for this type.
        """


def column_files(number: int, kind: str) -> list[str]:
    """Names of the files of column `number`, by its type."""
    return [f"attribute{number}.{part}" for part in _FILES[kind]]


def load_column(folder: Path, number: int, kind: str, item_count: int) -> Column:
    """Opens a column, every index checked.

    Raises:
        BundleError: naming the file, if it is not what it has to be.
    """
    paths = [folder / name for name in column_files(number, kind)]
    if kind == FLAG:
        return FlagColumn(item_count, _checked_flags(paths[0], item_count))
    items = load_array(paths[-1], np.int32, 1)
    if len(items) and (items.min() < 0 or items.max() >= item_count):
        raise BundleError(f"{paths[-1]} names an item outside 0..{item_count - 1}; make the bundle again")
    if kind in _NUMBER_TYPES:
        values = load_array(paths[0], _NUMBER_TYPES[kind], 1)
        if len(values) != len(items) or not np.all(values[1:] >= values[:-1]) or not np.isfinite(values).all():
            raise BundleError(f"{paths[0]} is not {len(items)} ascending numbers; make the bundle again")
        return NumberColumn(item_count, items, values)
    vocabulary, indptr = Vocabulary.load(paths[0]), load_array(paths[1], np.int64, 1)
    if len(indptr) != len(vocabulary) + 1:
        raise BundleError(
            f"{paths[1]} has {len(indptr)} entries; expected {len(vocabulary) + 1}: make the bundle again"
        )
    if indptr[0] != 0 or indptr[-1] != len(items) or np.any(indptr[1:] < indptr[:-1]):
        raise BundleError(f"{paths[1]} does not rise from 0 to {len(items)}; make the bundle again")
    return CategoryColumn(item_count, items, indptr, vocabulary, several=kind == CATEGORIES)


@dataclass(frozen=True)
class _Listed:
    """A column that lists the items with a value: `items`, `int32[P]`."""

    item_count: int
    items: Int32Array

    @cached_property
    def known(self) -> Uint64Array:
        """The items with a value, `uint64[W]`."""
        return item_sets.of_items(self.items, self.item_count)


@dataclass(frozen=True)
class CategoryColumn(_Listed):
    """A category, or several, of each item.

    Attributes:
        item_count: N.
        items: `int32[P]`, those of the first value, then those of the next.
        indptr: `int64[V + 1]`, the items of value v are at `indptr[v]:indptr[v + 1]`.
        vocabulary: the V values.
        several: whether an item may have more than one.
    """

    indptr: Int64Array
    vocabulary: Vocabulary
    several: bool
    about: ClassVar[str] = "a category"
    expected: ClassVar[str] = 'a "text" or a whole number with =, !=, in or not in'

    @property
    def type(self) -> str:
        """See `Column`."""
        return CATEGORIES if self.several else CATEGORY

    def save(self, folder: Path, number: int) -> list[str]:
        """See `Column`."""
        files = column_files(number, self.type)
        self.vocabulary.save(folder / files[0])
        return [files[0], *_save(folder, files[1:], self.indptr, self.items)]

    def matching(self, comparison: Comparison) -> Uint64Array:
        """See `Column`."""
        _check(self, comparison, lambda value: isinstance(value, str) or _is_integer(value))
        places = [self.vocabulary.find(str(value)) for value in comparison.values]
        parts = [self.items[self.indptr[place] : self.indptr[place + 1]] for place in places if place is not None]
        found = item_sets.of_items(_joined(parts), self.item_count)
        return self.known & ~found if comparison.operator in NEGATED else found


@dataclass(frozen=True)
class NumberColumn(_Listed):
    """A number of each item.

    Attributes:
        item_count: N.
        items: `int32[K]`, the item of each value.
        values: `int64[K]` or `float64[K]`, ascending.
    """

    values: Int64Array | npt.NDArray[np.float64]
    about: ClassVar[str] = "a number"
    expected: ClassVar[str] = "a comparison with numbers"

    @property
    def type(self) -> str:
        """See `Column`."""
        return INTEGER if self.values.dtype == np.int64 else NUMBER

    def save(self, folder: Path, number: int) -> list[str]:
        """See `Column`."""
        return _save(folder, column_files(number, self.type), self.values, self.items)

    def matching(self, comparison: Comparison) -> Uint64Array:
        """See `Column`."""
        _check(self, comparison, is_number)
        operator, numbers = comparison.operator, [value for value in comparison.values if not isinstance(value, str)]
        if operator not in ORDERING:
            spans = [(self._below(number), self._below(number, equal=True)) for number in numbers]
            found = self._items_at(spans)
            return self.known & ~found if operator in NEGATED else found
        low = 0 if operator in ("<", "<=") else self._below(numbers[0], equal=operator == ">")
        high = len(self.values) if operator in (">", ">=") else self._below(numbers[-1], equal=operator != "<")
        high = max(low, high)
        if 2 * (high - low) > len(self.values):  # the others are fewer
            return self.known & ~self._items_at([(0, low), (high, len(self.values))])
        return self._items_at([(low, high)])

    def _items_at(self, spans: list[tuple[int, int]]) -> Uint64Array:
        return item_sets.of_items(_joined([self.items[low:high] for low, high in spans]), self.item_count)

    def _below(self, number: float, *, equal: bool = False) -> int:
        """How many values are below a number, or equal to it; exact for every int and float."""
        kind = self.values.dtype.type
        limits = np.iinfo(np.int64)
        if kind is np.int64 and not limits.min <= number <= limits.max:
            return 0 if number < 0 else len(self.values)
        own = int(number // 1) if kind is np.int64 else float(number)  # the nearest that a value can be
        side = equal if own == number else own < number
        return int(np.searchsorted(self.values, kind(own), "right" if side else "left"))


@dataclass(frozen=True)
class FlagColumn:
    """True or false of each item.

    Attributes:
        item_count: N.
        flags: `uint64[2, W]`, the items for which it is false, and true.
    """

    item_count: int
    flags: Uint64Array
    about: ClassVar[str] = "a flag"
    expected: ClassVar[str] = "its name alone, or = or != with true or false"
    type: ClassVar[str] = FLAG

    def save(self, folder: Path, number: int) -> list[str]:
        """See `Column`."""
        return _save(folder, column_files(number, FLAG), self.flags)

    def matching(self, comparison: Comparison) -> Uint64Array:
        """See `Column`."""
        _check(self, comparison, lambda value: isinstance(value, bool))
        found = item_sets.none(self.item_count)
        for value in (False, True):
            if (value in comparison.values) != (comparison.operator in NEGATED):
                found |= self.flags[int(value)]
        return found


def _check(
    column: CategoryColumn | NumberColumn | FlagColumn, comparison: Comparison, fits: Callable[[Value], bool]
) -> None:
    wrong = [value for value in comparison.values if not fits(value)]
    is_ordering = comparison.operator in ORDERING and not isinstance(column, NumberColumn)
    if wrong or is_ordering:
        got = f"{comparison.operator} {value_text((wrong or comparison.values)[0])}"
        if comparison.is_name_alone:
            got = "its name alone, which is for flags"
        raise FilterError(
            f"{at(comparison.position)}attribute {name_text(comparison.attribute)} is {column.about}; "
            f"got {got}; expected {column.expected}"
        )


def _is_integer(value: Value) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _joined(parts: list[Int32Array]) -> Int32Array:
    return parts[0] if len(parts) == 1 else np.concatenate([np.zeros(0, np.int32), *parts])


def _save(folder: Path, names: list[str], *arrays: npt.NDArray[Any]) -> list[str]:
    for name, array in zip(names, arrays, strict=True):
        np.save(folder / name, array, allow_pickle=False)
    return names


def _checked_flags(path: Path, item_count: int) -> Uint64Array:
    flags: Uint64Array = load_array(path, np.uint64, 2)
    expected = (2, item_sets.bitmap_words(item_count))
    if flags.shape != expected:
        raise BundleError(f"{path} has shape {flags.shape}; expected {expected}: make the bundle again")
    if np.any(flags & ~item_sets.everything(item_count)) or np.any(flags[0] & flags[1]):
        raise BundleError(f"{path} sets a flag of no item, or to both true and false; make the bundle again")
    return flags
