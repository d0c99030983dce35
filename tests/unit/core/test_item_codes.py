"""Attributes of items as codes, against the codes worked out by hand, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nann.errors import RequestError
from nann.item_codes import ItemCodes

BODY = {
    "separator": "|",
    "fields": [
        {
            "name": "brand",
            "kind": "category",
            "values": ["Acme", "Zed"],
            "left_out": ["Common"],
            "unknown_code": 0,
            "first_value_code": 1,
        },
        {"name": "tags", "kind": "categories", "values": ["1", "a", "true"], "unknown_code": 3, "first_value_code": 4},
        {"name": "price", "kind": "number", "edges": [2.0, 5.0], "unknown_code": 7, "first_value_code": 8},
        {"name": "category", "kind": "category", "values": ["x", "y"], "unknown_code": None, "first_value_code": 11},
    ],
}
CODES = ItemCodes.of(BODY, others=["sku", "brand"])


@pytest.mark.parametrize(
    ("item", "expected", "unknown"),
    [
        ({}, [0, 3, 7], 0),
        ({"brand": "Acme", "tags": ["a", "1"], "price": 3.2, "category": "y"}, [1, 5, 4, 9, 12], 0),
        ({"brand": " Zed ", "tags": "a| a ||1", "price": 5, "sku": object()}, [2, 5, 4, 10], 0),
        ({"brand": "Nobody", "tags": ["a", "b"], "price": -1, "category": "z"}, [0, 5, 8], 3),
        ({"brand": "Common", "tags": [], "price": None, "category": None}, [0, 3, 7], 0),
        ({"brand": "", "tags": [None, True, 1, 1.0]}, [0, 6, 4, 7], 0),
    ],
)
def test_values_become_the_codes_of_training(item, expected, unknown):
    coded = CODES.encode([item])
    assert coded.codes.dtype == np.int32
    assert coded.codes.tolist() == [expected]
    assert coded.unknown_values == unknown


def test_items_are_padded_to_the_longest():
    assert CODES.encode([{}, {"category": "x"}]).codes.tolist() == [[0, 3, 7, -1], [0, 3, 7, 11]]
    assert CODES.encode([]).codes.shape == (0, 1)


def test_without_a_separator_a_text_is_one_value():
    codes = ItemCodes.of({**BODY, "separator": ""})
    assert codes.encode([{"tags": "a|1"}]).unknown_values == 1


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=5, unique=True), st.floats(allow_nan=False, width=32))
def test_numbers_fall_into_the_bins_of_training(edges, number):
    edges = sorted(edges)
    field = {"name": "n", "kind": "number", "edges": edges, "unknown_code": 0, "first_value_code": 1}
    codes = ItemCodes.of({"separator": "", "fields": [field]})
    if not np.isfinite(number):
        with pytest.raises(RequestError, match="expected a finite number"):
            codes.encode([{"n": number}])
    else:
        assert codes.encode([{"n": number}]).codes[0, 0] == 1 + np.searchsorted(edges, number, side="right")


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ({"colour": "red"}, "item 2 of 2: it has an attribute 'colour'; expected some of brand, category, price, sku"),
        ({"brand": 1.5}, "item 2 of 2: its 'brand' is 1.5; expected a text, a whole number"),
        ({"tags": [{}]}, r"item 2 of 2: its 'tags' is \[{}\]; expected a text"),
        ({"tags": {"a": 1}}, "item 2 of 2: its 'tags' is {'a': 1}; expected a text"),
        ({"price": "3.2"}, "item 2 of 2: its 'price' is '3.2'; expected a finite number"),
        ({"price": True}, "item 2 of 2: its 'price' is True; expected a finite number"),
        ({"price": [1]}, r"item 2 of 2: its 'price' is \[1\]; expected a finite number"),
        ("Acme", "item 2 of 2: it is 'Acme'; expected values by attribute"),
    ],
)
def test_bad_attributes_are_named(item, message):
    with pytest.raises(RequestError, match=message):
        CODES.encode([{}, item])


def test_of_many_attributes_some_are_named():
    codes = ItemCodes.of(BODY, others=[f"a{number:02}" for number in range(30)])
    with pytest.raises(RequestError, match=r"expected some of a00, .*, a19 and 14 more$"):
        codes.encode([{"b": 1}])
