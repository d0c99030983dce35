"""The attributes of single items: a bundle lists the items of each value, a page shows the values of each item."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np

from nann import item_sets
from nann.filters.columns import CATEGORIES, CategoryColumn, Column, FlagColumn, NumberColumn

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

    def of(self, item: int) -> list[Any]:
        """The values of one item as Python's str, int or float; none, one or several."""
        items, order = self._by_item
        places = order[np.searchsorted(items, item) : np.searchsorted(items, item, "right")]
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

    def of(self, item: int) -> dict[str, str]:
        """The item's attributes as texts, those alone that it has."""
        shown = {}
        for name, column in self._columns.items():
            if isinstance(column, FlagColumn):
                said = [word for word, flags in zip(("no", "yes"), column.flags, strict=True) if _has(flags, item)]
            else:
                said = [
                    f"{value:g}" if isinstance(value, float) else str(value) for value in self._values[name].of(item)
                ]
            if said:
                shown[name] = ", ".join(said)
        return shown

    def schema(self) -> list[dict[str, Any]]:
        """What the filter builder offers: name and type of each, and common values or the smallest and the largest."""
        return [{"name": name, "type": column.type, **_offered(column)} for name, column in self._columns.items()]


def _has(flags: Any, item: int) -> bool:
    return bool(item_sets.contains(flags[None], np.array([[item]], np.int32))[0, 0])


def _offered(column: Column) -> dict[str, Any]:
    if isinstance(column, NumberColumn) and len(column.values):
        return {"low": column.values[0].item(), "high": column.values[-1].item()}
    if isinstance(column, CategoryColumn):
        counts = np.diff(column.indptr)
        common = np.argsort(-counts, kind="stable")[:_SHOWN_VALUES].tolist()
        values = sorted(column.vocabulary[place].decode() for place in common)
        return {"values": values, "distinct": len(counts), "several": column.type == CATEGORIES}
    return {}
