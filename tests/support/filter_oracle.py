"""Filters as plain tuples: written as text, and evaluated item by item in plain Python.

("compare", name, operator, values) | ("not", filter) | ("and", filters) | ("or", filters)
"""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from hypothesis import strategies as st

from nann import item_sets

ITEMS: list[dict[str, Any]] = [
    {"genre": "jazz", "tags": ["new", "live"], "year": 1959, "price": 9.5, "available": True, "group": "3"},
    {"genre": "rock", "tags": ["new"], "year": 1971, "price": 20.0, "available": False, "group": "7"},
    {"genre": "pop", "tags": [], "year": 2019, "price": 5.0, "available": True, "group": "3"},
    {"genre": 'a "b" \\c', "tags": ["live", "é", "7"], "year": -3, "price": -0.0, "available": None, "group": None},
    {"genre": None, "tags": ["old"], "year": None, "price": None, "available": False, "group": "x"},
    {
        "genre": "jazz",
        "tags": ["new", "old", "live"],
        "year": 2**62 + 1,
        "price": 1e300,
        "available": True,
        "group": "",
    },
    *({"genre": "jazz", "tags": ["new"], "year": 1900 + n, "price": n / 4, "available": n % 3 == 0} for n in range(90)),
]
ATTRIBUTES = {name: [item.get(name) for item in ITEMS] for name in ITEMS[0]}
_COMPARE = {"=": operator.eq, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}


def matches(filter_: Any, item: Mapping[str, Any]) -> bool:
    """Whether an item matches."""
    kind, *rest = filter_
    if kind == "not":
        return not matches(rest[0], item)
    if kind in ("and", "or"):
        return (all if kind == "and" else any)(matches(part, item) for part in rest[0])
    name, symbol, values = rest
    found = item.get(name)
    if found is None or found == []:
        return False
    several = found if isinstance(found, list) else [found]
    if isinstance(several[0], str):
        values = [str(value) for value in values]
    if symbol == "between":
        return values[0] <= found <= values[1]
    if symbol in ("=", "in", "!=", "not in"):
        return any(value in several for value in values) == (symbol in ("=", "in"))
    return _COMPARE[symbol](found, values[0])


def item_set(filter_: Any, items: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """The items that match, `uint64[W]`."""
    found = [number for number, item in enumerate(items) if matches(filter_, item)]
    return item_sets.of_items(np.array(found, np.int32), len(items))


def written(filter_: Any) -> str:
    """The filter as text, a group always in parentheses."""
    kind, *rest = filter_
    if kind == "not":
        return f"NOT {written(rest[0])}"
    if kind in ("and", "or"):
        return "(" + f" {kind} ".join(map(written, rest[0])) + ")"
    name, symbol, values = rest
    shown = [_value(value) for value in values]
    if symbol in ("in", "not in"):
        return f"{name} {symbol} ({','.join(shown)})"
    return f"{name} {symbol} {shown[0]}" + (f" And {shown[1]}" if symbol == "between" else "")


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return str(value)  # True and False: keywords in any case
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{escaped}"'
    return repr(value)


_WORDS = st.sampled_from(["jazz", "rock", 'a "b" \\c', "new", "live", "é", "", "no such value"]) | st.text(max_size=4)
_WHOLE = st.sampled_from([-3, 0, 3, 5, 7, 1959, 1971, 2**62, 2**62 + 1, 2**64, -(2**70), 10**300]) | st.integers(
    1890, 2025
)
_NUMBERS = _WHOLE | st.sampled_from([5.0, 9.5, 1e300, 4.6116860184273879e18]) | st.floats(-10, 30) | st.integers(0, 22)


def _lists(names: list[str], values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    single = st.tuples(st.sampled_from(names), st.sampled_from(["=", "!="]), st.lists(values, min_size=1, max_size=1))
    several = st.tuples(
        st.sampled_from(names), st.sampled_from(["in", "not in"]), st.lists(values, min_size=1, max_size=4)
    )
    return single | several


_ORDERED = st.tuples(
    st.sampled_from(["year", "price"]),
    st.sampled_from(["<", "<=", ">", ">="]),
    st.lists(_NUMBERS, min_size=1, max_size=1),
)
_BETWEEN = st.tuples(st.sampled_from(["year", "price"]), st.just("between"), st.lists(_NUMBERS, min_size=2, max_size=2))
_COMPARISONS = (
    _lists(["genre", "tags", "group"], _WORDS | _WHOLE)
    | _lists(["year", "price"], _NUMBERS)
    | _lists(["available"], st.booleans())
    | _ORDERED
    | _BETWEEN
).map(lambda parts: ("compare", *parts))
FILTERS = st.recursive(
    _COMPARISONS,
    lambda inner: (
        inner.map(lambda part: ("not", part))
        | st.tuples(st.sampled_from(["and", "or"]), st.lists(inner, min_size=1, max_size=3))
    ),
    max_leaves=8,
)
"""Filters over the attributes of `ITEMS`."""
