"""The places of added items: whose they are after many changes, also after all items got new ones."""

from __future__ import annotations

import numpy as np
import pytest
from support.changing_bundle import make_bundle

from nann import item_sets
from nann.catalog.added_items import AddedItems
from nann.item_ids import NUMBERS, TEXT


@pytest.mark.parametrize("kind", [NUMBERS, TEXT], ids=["numbers", "texts"])
def test_places_hold_the_items_that_are_there_whatever_came_and_went(kind, tmp_path):
    rng, there = np.random.default_rng(0), {}
    added = AddedItems(make_bundle(tmp_path / "bundle").attributes, (2, 1, 3), kind, first=64)
    moves = 0
    for number in range(3000):
        item_id = int(rng.integers(1, 150))
        replaced = item_id if item_id < 50 else -1
        item_id = item_id if kind is NUMBERS else f"sku {item_id}"
        if rng.random() < 0.3:
            assert added.remove(item_id) == (there.pop(item_id, None) is not None)
        else:
            values = {"price": float(number)} if number % 2 else {}
            vector = np.full(3, 2 * number, np.float32) if number % 3 else None
            added.put(
                item_id, values, np.full(2, number, np.float32), np.full(1, -number, np.float32), vector, replaced
            )
            there[item_id] = number, values, replaced
        snapshot = added.snapshot()
        if not there:
            assert snapshot is None
            continue
        moves = snapshot.move
        places = [added.place(each) for each in there]
        assert sorted(places) == item_sets.members(snapshot.present).tolist()
        assert snapshot.rows[places, 0].tolist() == [put for put, *_ in there.values()]
        assert snapshot.light[places, 0].tolist() == [-put for put, *_ in there.values()]
        vectors = [2 * put if put % 3 else np.nan for put, *_ in there.values()]
        np.testing.assert_array_equal(snapshot.vectors[places], np.repeat([vectors], 3, axis=0).T)
        keys = kind.keys(np.array(list(there), kind.dtype))
        assert snapshot.items_of(keys).tolist() == [64 + place for place in places]
        expected = np.arange(50)
        for place, (_, _, item) in zip(places, there.values(), strict=True):
            if item >= 0:
                expected[item] = 64 + place
        np.testing.assert_array_equal(snapshot.instead_of(np.arange(50, dtype=np.int32)), expected)
        if number % 50 == 0:
            assert [added.attributes(place) for place in places] == [values for _, values, _ in there.values()]
            by_place = sorted(zip(places, there.values(), strict=True))
            assert [put for _, (put, *_) in by_place] == sorted(put for put, *_ in there.values())
    assert moves > 3


def test_a_snapshot_stays_what_it_is(tmp_path):
    added = AddedItems(None, (1, 0, 0), NUMBERS, first=0)
    for number in range(1, 60):
        added.put(number, {}, np.full(1, number, np.float32), None, None, -1)
    before = added.snapshot()
    rows, present = before.rows.copy(), before.present.copy()
    for number in range(1, 300):
        added.put(number, {}, np.full(1, -1, np.float32), None, None, -1)
        added.remove(number // 2)
    np.testing.assert_array_equal(before.rows, rows)
    np.testing.assert_array_equal(before.present, present)
    with pytest.raises(ValueError, match="read-only"):
        before.present[0] = 0
