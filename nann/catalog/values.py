"""Values of attributes as an operator gives them, and as columns of a few items."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from nann import item_sets
from nann.errors import RequestError
from nann.filters.columns import (
    CATEGORIES,
    CATEGORY,
    FLAG,
    INTEGER,
    NUMBER,
    CategoryColumn,
    Column,
    FlagColumn,
    NumberColumn,
)
from nann.filters.vocabulary import Vocabulary

_EXPECTED = {
    CATEGORY: "a text, a whole number, or a list of them",
    CATEGORIES: "a text, a whole number, or a list of them",
    INTEGER: "a whole number of 64 bits",
    NUMBER: "a finite number",
    FLAG: "true or false",
}


_NUMBERS: Mapping[str, type] = {INTEGER: np.int64, NUMBER: np.float64}


def checked(name: str, kind: str, value: Any) -> Any:
    """A value of an attribute of this type (`nann.filters.columns.TYPES`): of categories a list of texts.

    None is one of every type: no value. So is an empty list of categories.

    Raises:
        RequestError: naming the attribute, if it is of another type.
    """
    if value is None or (value == [] and kind in (CATEGORY, CATEGORIES)):
        return None
    found = _READERS[kind](value)
    if found is None:
        raise RequestError(f"attribute {name!r} is {_shown(value)}; expected {_EXPECTED[kind]}, or null")
    return found


def column_of(kind: str, values: list[Any]) -> Column:
    """A column of M items from `checked` values, which filters match as they match a bundle's."""
    known = [place for place, value in enumerate(values) if value is not None]
    if kind == FLAG:
        sets = [[place for place in known if values[place] is flag] for flag in (False, True)]
        return FlagColumn(len(values), np.stack([item_sets.of_items(_items(each), len(values)) for each in sets]))
    if kind in _NUMBERS:
        numbers: npt.NDArray[Any] = np.array([values[place] for place in known], _NUMBERS[kind])
        order = np.argsort(numbers, kind="stable")
        return NumberColumn(len(values), _items(known)[order], numbers[order])
    places: dict[bytes, list[int]] = {}
    for place in known:
        for text in values[place]:
            places.setdefault(text.encode(), []).append(place)
    texts = sorted(places)
    counts = [len(places[text]) for text in texts]
    return CategoryColumn(
        len(values),
        _items([place for text in texts for place in places[text]]),
        np.append(0, np.cumsum(counts)).astype(np.int64),
        Vocabulary.of([text.decode() for text in texts]),
        several=kind == CATEGORIES,
    )


def _texts(value: Any) -> list[str] | None:
    each = value if isinstance(value, list) else [value]
    if not all(isinstance(one, str) or _is_whole(one) for one in each):
        return None
    try:
        texts = {str(one).encode().decode() for one in each}  # a lone surrogate is no text
    except UnicodeError:
        return None
    return sorted({re.sub(r"[\r\n]+", " ", text) for text in texts})  # a vocabulary has one value a line


def _whole(value: Any) -> int | None:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if _is_whole(value) and -(2**63) <= value < 2**63 else None


def _number(value: Any) -> float | None:
    if not (_is_whole(value) or isinstance(value, float)):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _flag(value: Any) -> bool | None:
    return value if isinstance(value, bool) else None


_READERS: Mapping[str, Any] = {CATEGORY: _texts, CATEGORIES: _texts, INTEGER: _whole, NUMBER: _number, FLAG: _flag}


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _items(places: list[int]) -> Any:
    return np.array(places, np.int32)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
