"""The attributes of a corpus that changed, as columns of its next bundle."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from nann import item_sets
from nann.catalog.values import column_of
from nann.filters import Catalogue
from nann.filters.columns import CategoryColumn, Column, FlagColumn, NumberColumn
from nann.filters.vocabulary import Vocabulary

Int64Array = npt.NDArray[np.int64]
Values = Mapping[int, Any]


def next_catalogue(
    catalogue: Catalogue, next_of: Int64Array, changed: Mapping[str, Values], item_count: int
) -> Catalogue:
    """The attributes of M items, most of which were among N before.

    Args:
        catalogue: of the N.
        next_of: `int64[N]`, which of the M each of them is; -1: it went.
        changed: by attribute, the values (`nann.catalog.values.checked`) of those of the M that have other ones now.
        item_count: M.
    """
    return Catalogue(
        {
            name: _column(column, next_of, changed.get(name, {}), item_count)
            for name, column in catalogue.columns.items()
        },
        item_count,
    )


def _column(column: Column, next_of: Int64Array, values: Values, item_count: int) -> Column:
    changed = np.fromiter(values, np.int64, len(values))
    unchanged = next_of.copy()
    unchanged[np.isin(next_of, changed)] = -1
    parts = ((column, unchanged), (column_of(column.type, list(values.values())), changed))
    if isinstance(column, FlagColumn):
        return _flags(parts, item_count)
    return _numbers(parts, item_count) if isinstance(column, NumberColumn) else _categories(parts, item_count)


def _flags(parts: Any, item_count: int) -> Column:
    flags = [
        item_sets.of_items(
            np.concatenate([at[item_sets.members(column.flags[flag])] for column, at in parts]).astype(np.int32),
            item_count,
        )
        for flag in (0, 1)
    ]
    return FlagColumn(item_count, np.stack(flags))


def _numbers(parts: Any, item_count: int) -> Column:
    items = np.concatenate([at[column.items] for column, at in parts])
    values = np.concatenate([column.values for column, _ in parts])
    known = items >= 0
    items, values = items[known], values[known]
    order = np.lexsort((items, values))
    return NumberColumn(item_count, items[order].astype(np.int32), values[order])


def _categories(parts: Any, item_count: int) -> Column:
    texts = sorted({text for column, _ in parts for text in column.vocabulary})
    place = {text: number for number, text in enumerate(texts)}
    items = np.concatenate([at[column.items] for column, at in parts])
    codes = np.concatenate(
        [
            np.repeat(np.array([place[text] for text in column.vocabulary], np.int64), np.diff(column.indptr))
            for column, _ in parts
        ]
    )
    known = items >= 0
    items, codes = items[known], codes[known]
    order = np.lexsort((items, codes))
    counts = np.bincount(codes, minlength=len(texts))
    used = np.flatnonzero(counts)
    vocabulary = Vocabulary.of([texts[code].decode() for code in used])
    indptr = np.append(0, np.cumsum(counts[used])).astype(np.int64)
    return CategoryColumn(item_count, items[order].astype(np.int32), indptr, vocabulary, several=parts[0][0].several)
