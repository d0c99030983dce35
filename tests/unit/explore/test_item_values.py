"""The attributes of single items, from a bundle's lists of items by value."""

from __future__ import annotations

import numpy as np
import pytest
from support import live_bundle

from nann.explore.item_values import Attributes
from nann.training.data.item_columns import catalogue_of


@pytest.fixture(scope="module")
def attributes() -> Attributes:
    return Attributes(catalogue_of(live_bundle.attributes(), live_bundle.ITEMS).columns)


def test_every_item_has_the_values_that_it_was_given(attributes):
    items = np.arange(live_bundle.ITEMS, dtype=np.int32)[::-1]
    given = live_bundle.attributes()

    def text(value) -> str:
        if isinstance(value, bool):
            return "yes" if value else "no"
        return (
            ", ".join(sorted(value)) if isinstance(value, list) else f"{value:g}" if isinstance(value, float) else value
        )

    for item, shown in zip(items.tolist(), attributes.of(items), strict=True):
        values = {name: column[item] for name, column in given.items()}
        assert shown == {name: text(value) for name, value in values.items() if value not in (None, [])}


def test_a_number_is_shown_with_all_its_digits():
    prices = [1234567.89, 12345.67, 2.0, 0.1, 1e9]
    shown = Attributes(catalogue_of({"price": prices}, len(prices)).columns).of(np.arange(len(prices), dtype=np.int32))
    assert [each["price"] for each in shown] == ["1234567.89", "12345.67", "2", "0.1", "1000000000"]


def test_the_builder_is_offered_types_values_and_ranges(attributes):
    schema = {each.pop("name"): each for each in attributes.schema()}
    assert schema["department"] == {
        "type": "category", "values": ["DRUG GM", "GROCERY", "PRODUCE"], "distinct": 3, "several": False,
    }  # fmt: skip
    assert schema["price"] == {"type": "number", "low": 0.0, "high": 99.9}
    assert schema["available"] == {"type": "flag"}
    assert (schema["tag"]["several"], schema["tag"]["values"]) == (True, ["adult", "new"])


def test_of_many_values_the_common_ones_are_offered():
    texts = [f"v{min(item, 150):03}" for item in range(400)]  # v150 has most items, the others one each
    (offered,) = Attributes(catalogue_of({"maker": texts}, 400).columns).schema()
    assert len(offered["values"]) == 100
    assert "v150" in offered["values"]
    assert offered["distinct"] == 151
