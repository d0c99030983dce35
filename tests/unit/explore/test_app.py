"""The page over HTTP, beside no server and one that fails: headers, hosts, refusals."""

from __future__ import annotations

import http.client
import json

import grpc
import numpy as np
import pytest
from support import live_bundle
from support.explore_page import NOWHERE, explored
from support.fake_server import FakeServer, running

from nann.bundle import Bundle
from nann.explore.app import STATIC
from nann.explore.explorer import Addresses
from nann.filters import NamedFilters


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Bundle:
    return live_bundle.make_bundle(tmp_path_factory.mktemp("live") / "bundle")


@pytest.fixture(scope="module")
def page(bundle, tmp_path_factory):
    with explored(bundle, tmp_path_factory.mktemp("cache"), NOWHERE, timeout_s=2) as page:
        yield page


def test_the_page_and_all_of_its_files_come_from_here(page):
    status, headers, body = page.get("/")
    assert status == 200
    assert headers["content-security-policy"].startswith("default-src 'self';")
    assert (headers["x-content-type-options"], headers["referrer-policy"]) == ("nosniff", "no-referrer")
    for path in STATIC.iterdir():
        assert page.get(f"/static/{path.name}")[0] == 200
        text = path.read_text().replace("http://www.w3.org/2000/svg", "")
        assert "http:" not in text
        assert "https:" not in text
    assert b"<script>" not in body
    assert b"style=" not in body


def test_only_its_own_names_are_answered(page):
    port = int(page.url.rpartition(":")[2])
    for host, status in (("127.0.0.1", 200), ("localhost:99", 200), ("evil.example", 400)):
        connection = http.client.HTTPConnection("127.0.0.1", port)
        connection.request("GET", "/api/about", headers={"host": host})
        assert connection.getresponse().status == status
        connection.close()


def test_an_item_of_thousands_of_digits_is_refused(page):
    status, _, body = page.get(f"/api/items?items={'9' * 5000}")
    assert status == 400
    assert "items holds '999" in body["message"]


def test_what_the_page_knows_of_the_bundle(page, bundle):
    _, _, about = page.get("/api/about")
    assert (about["bundle"], about["items"], about["entry"]) == (bundle.bundle_id, live_bundle.ITEMS, "layers")
    assert set(about["search"]) == {"layers", "seeds"}
    assert about["bounds"]["max_top_k"] == 1000
    assert about["filters"] == live_bundle.NAMED, "an operator's are not known here"
    assert about["test_users"] is False


def test_names_and_ids_are_found(page):
    _, _, found = page.get("/api/names?q=item%2012")
    assert len(found) == 12
    assert {each["name"][:7] for each in found} == {"item 12"}
    _, _, (by_id, *_) = page.get(f"/api/names?q={live_bundle.item_ids()[33]}")
    assert (by_id["item"], by_id["attributes"]["department"]) == (33, "GROCERY")
    assert page.get("/api/names?q=")[2] == []


def test_points_are_the_items_and_their_levels(page, bundle):
    body = page.get("/api/points")[2]
    count = len(body) // 9
    assert count == bundle.item_count
    assert np.frombuffer(body, "<i4", count).tolist() == list(range(count))
    levels = np.frombuffer(body, np.uint8, count, 8 * count)
    assert np.array_equal(levels, bundle.graph.levels)


def test_a_walk_is_explained_without_a_server(page):
    status, _, walk = page.post("/api/walk", {"items": [30], "parameters": {"top_k": 5}})
    assert status == 200
    assert len(walk["names"]) == len(walk["places"]) == len(walk["items"])
    assert walk["own"] == [30]


@pytest.mark.parametrize(
    ("parameters", "walked", "scored"),
    [
        ({}, True, None),
        ({"exclude_history": True}, True, None),
        ({"entry": "seeds", "exclude_history": True}, False, None),  # so few items are scanned by the light score
        ({"entry": "seeds", "seeds": 20, "seed_ef": 20, "rounds": 0, "exclude_history": True}, True, None),
        ({"entry": "seeds", "filter": 'tag = "adult"'}, False, 80),
        ({"entry": "seeds", "filter": "price < -1"}, False, 0),
        ({"entry": "all"}, False, live_bundle.ITEMS),
    ],
)
def test_a_search_that_does_not_walk_is_told_from_one_that_does(page, parameters, walked, scored):
    walk = page.post("/api/walk", {"items": [30], "parameters": parameters})[2]
    assert walk["walked"] is walked
    if scored is not None:
        assert (walk["evaluations"], walk["matching"]) == (scored, scored)


def test_an_operators_filters_are_known_from_the_repository(bundle, tmp_path):
    filters = NamedFilters.of_repository(tmp_path / "repository")
    filters.set("cheap", "price < 5")
    filters.set("listed", live_bundle.item_ids()[[3, 4, 900]])
    (own,) = live_bundle.NAMED
    filters.set(own, "available")
    (tmp_path / "repository/.filters/damaged.filter").write_bytes(b"\xff")
    with explored(bundle, tmp_path, NOWHERE, repository=tmp_path / "repository") as page:
        named = page.get("/api/about")[2]["filters"]
        assert named == {own: "available", "cheap": "price < 5", "listed": None}, "the operator's before the bundle's"
        walk = page.post("/api/walk", {"items": [30], "parameters": {"filter_name": "listed"}})[2]
        assert (walk["matching"], sorted(walk["rounds"][0]["scored"])) == (3, [3, 4, 900])
        filters.set("listed", live_bundle.item_ids()[[7]])
        question = {"items": [30], "parameters": {"filter_name": "listed"}}
        compared = page.post("/api/compare", {"question": question, "answer": [7], "evaluations": 1})[2]
        assert compared["exhaustive"]["ranks"] == [1], "as it is now"
        filters.set("later", "price > 5")
        assert page.get("/api/filters")[2] == {**named, "later": "price > 5"}


@pytest.mark.parametrize(
    ("path", "body", "status", "kind", "message"),
    [
        ("query", {"items": [3]}, 503, "away", "127.0.0.1:1"),
        ("walk", {"parameters": {"filter": "pric < 3"}}, 400, "refused", "got 'pric'; expected an attribute"),
        ("walk", {"parameters": {"filter_name": "cheap"}}, 400, "refused", "the filter 'cheap' can't be read here; "
         "start `nann explore` with the server's --repository"),
        ("walk", {"items": [99999]}, 400, "refused", "items holds 99999"),
        ("compare", {"answer": [], "evaluations": "x"}, 400, "refused", "evaluations is 'x'; expected how many"),
        ("snippets", b"{", 400, "refused", "the request is not JSON"),
        ("snippets", b"[]", 400, "refused", "the request is not a JSON object"),
        ("snippets", b"[" * 2_000_000, 400, "refused", "more than 1,048,576 bytes"),
    ],
)  # fmt: skip
def test_refusals_say_what_is_wrong(page, path, body, status, kind, message):
    ended, _, refusal = page.post(f"/api/{path}", body)
    assert (ended, refusal["kind"]) == (status, kind)
    assert message in refusal["message"]


def test_another_pages_form_is_refused(page):
    ended, _, refusal = page.post("/api/query", b"{}", "text/plain")
    assert (ended, refusal["message"]) == (400, "content-type is 'text/plain'; expected application/json")


def test_what_is_not_there_is_said(page):
    assert page.get("/api/random-user")[2]["message"].startswith(
        "no test users are known; start `nann explore` with --data"
    )
    assert "no metrics at 127.0.0.1:1" in page.get("/api/health")[2]["message"]
    assert page.get("/api/status")[2] == {"ready": False, "serves": None, "same_bundle": True, "same_search": True}
    assert page.get("/api/nothing")[0] == 404
    assert page.get("/static/../app.py")[0] == 404


def test_a_server_that_refuses_is_told_from_one_that_is_away(bundle, tmp_path):
    server = FakeServer(
        [(grpc.StatusCode.UNAVAILABLE, "Exceeds maximum queue size")],
        settings={"bundle": "abc", "item_id_kind": "numbers"},
    )
    with running(server) as address, explored(bundle, tmp_path, Addresses(address, *[NOWHERE.http] * 2)) as page:
        status, _, refusal = page.post("/api/query", {"items": [3]})
        assert (status, refusal["kind"]) == (429, "overloaded"), json.dumps(refusal)
        found = page.get("/api/status")[2]
        assert found == {"ready": True, "serves": "abc", "same_bundle": False, "same_search": False}
        status, _, answer = page.post("/api/query", {"items": [3]})
        assert status == 200
        assert answer["items"] == [{"item": None, "id": "7", "name": "7", "attributes": {}, "score": 1.0}], (
            "not of this bundle"
        )
