"""The attributes of single items: a bundle lists the items of each value, a page shows the values of each item."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from nann import item_sets
from nann.filters.columns import CATEGORIES, CategoryColumn, Column, FlagColumn, NumberColumn

Int32Array = npt.NDArray[np.int32]

_SHOWN_VALUES = 100
"""Values of a category that the filter builder offers: those that most items have."""


class ItemValues:
    """One column, item by item."""

    def __init__(self, column: CategoryColumn | NumberColumn) -> None:
        self._column = column

    @cached_property
    def _by_item(self) -> tuple[Any, Any]:
        """`int32[P]` items, ascending, and `int64[P]`, the place of each in the column's own list."""
        order = np.argsort(self._column.items, kind="stable")
        return self._column.items[order], order

    def of(self, wanted: Int32Array) -> list[list[Any]]:
        """The values of items (`int32[n]`) as Python's str, int or float: none, one or several of each."""
        items, order = self._by_item
        first, end = (np.searchsorted(items, wanted, side) for side in ("left", "right"))
        return [self._at(order[low:high]) for low, high in zip(first.tolist(), end.tolist(), strict=True)]

    def _at(self, places: npt.NDArray[np.int64]) -> list[Any]:
        column = self._column
        if isinstance(column, NumberColumn):
            return list(column.values[places].tolist())
        codes = np.searchsorted(column.indptr, places, "right") - 1
        return [column.vocabulary[code].decode() for code in codes.tolist()]


class Attributes:
    """The attributes of N items, for people.

    Args:
        columns: by name of the attribute, as in the bundle.
    """

    def __init__(self, columns: Mapping[str, Column]) -> None:
        self._columns = columns
        self._values = {
            name: ItemValues(column)
            for name, column in columns.items()
            if isinstance(column, CategoryColumn | NumberColumn)
        }

    def of(self, items: Int32Array) -> list[dict[str, str]]:
        """The attributes of items (`int32[n]`) as texts, of each those alone that it has."""
        shown: list[dict[str, str]] = [{} for _ in items]
        for name, column in self._columns.items():
            if isinstance(column, FlagColumn):
                no, yes = (item_sets.contains(flags[None], items[None])[0] for flags in column.flags)
                values: list[list[Any]] = [
                    ["no"] * n + ["yes"] * y for n, y in zip(no.tolist(), yes.tolist(), strict=True)
                ]
            else:
                values = self._values[name].of(items)
            for one, said in zip(shown, values, strict=True):
                if said:
                    one[name] = ", ".join(_text(value) for value in said)
        return shown

    def schema(self) -> list[dict[str, Any]]:
        """What the filter builder offers: name and type of each, and common values or the smallest and the largest."""
        return [{"name": name, "type": column.type, **_offered(column)} for name, column in self._columns.items()]


def _text(value: Any) -> str:
    return f"{value:.15g}" if isinstance(value, float) else str(value)


def _offered(column: Column) -> dict[str, Any]:
    if isinstance(column, NumberColumn) and len(column.values):
        return {"low": column.values[0].item(), "high": column.values[-1].item()}
    if isinstance(column, CategoryColumn):
        counts = np.diff(column.indptr)
        common = np.argsort(-counts, kind="stable")[:_SHOWN_VALUES].tolist()
        values = sorted(column.vocabulary[place].decode() for place in common)
        return {"values": values, "distinct": len(counts), "several": column.type == CATEGORIES}
    return {}
