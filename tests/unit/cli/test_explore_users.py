"""Test users of a prepared data set on the page of `nann explore`, and a bundle without names and attributes."""

from __future__ import annotations

import numpy as np
import pytest
from support import live_bundle
from support.cli_commands import refused
from support.explore_page import NOWHERE, explored

from nann.bundle import Bundle
from nann.errors import DataError
from nann.explore.people import HeldOutUsers
from nann.training.data.prepared import PreparedData

pytestmark = pytest.mark.heavy


def test_test_users_have_the_bundles_items(pipeline):
    bundle, data = Bundle.open(pipeline.bundle), PreparedData.load(pipeline.data)
    people, queries = HeldOutUsers(pipeline.data, bundle), data.queries("test", bundle.sequence_length)
    assert len(people) == len(queries.users)
    for number in range(len(people)):
        user = people.user(number)
        ids = queries.external_ids[number]
        assert bundle.item_ids[user["items"]].tolist() == ids[ids != 0].tolist()
        assert np.array_equal(bundle.item_ids[user["next"]], data.item_ids[queries.targets_of(number)])
        assert user["user"] == str(data.user_ids[int(queries.users[number])])
        assert user["profile"] is None


def test_users_of_another_kind_of_ids_are_refused(pipeline, tmp_path):
    bundle = live_bundle.make_bundle(tmp_path / "texts", texts=True)
    with pytest.raises(DataError, match=r"has ids that are whole numbers \(INT64\); expected text \(BYTES\)"):
        HeldOutUsers(pipeline.data, bundle)


def test_the_page_gives_one_of_them(pipeline, tmp_path):
    bundle = Bundle.open(pipeline.bundle)
    with explored(bundle, tmp_path, NOWHERE, data=pipeline.data) as page:
        assert page.get("/api/about")[2]["test_users"] is True
        user = page.get("/api/random-user")[2]
    assert [each["item"] for each in user["described"]] == user["items"]
    assert user in [
        {**one, "described": user["described"]} for one in map(HeldOutUsers(pipeline.data, bundle).user, range(20))
    ]


def test_a_bundle_without_names_is_searched_by_id(pipeline, tmp_path):
    bundle = Bundle.open(pipeline.bundle)
    assert bundle.item_names is None
    with explored(bundle, tmp_path, NOWHERE) as page:
        (found, *_) = page.get(f"/api/names?q={bundle.item_ids[3]}")[2]
        assert (found["item"], found["name"]) == (3, str(bundle.item_ids[3]))
        assert page.post("/api/walk", {"items": [3]})[0] == 200


def test_text_ids(tmp_path):
    bundle = live_bundle.make_bundle(tmp_path / "texts", texts=True)
    wanted = live_bundle.text_ids()[2500]
    with explored(bundle, tmp_path, NOWHERE) as page:
        (found, *_) = page.post("/api/snippets", {"items": [2500]})[2].values()
        assert wanted in found
        assert page.get("/api/items?items=2500")[2][0]["id"] == wanted
        assert page.post("/api/walk", {"items": [2500]})[2]["own"] == [2500]


def test_what_is_no_bundle_is_said(tmp_path):
    assert "is not a bundle" in refused("explore", "--bundle", tmp_path, "--port", 0)
