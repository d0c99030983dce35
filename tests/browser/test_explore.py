"""The page of `nann explore` in Chromium, beside a live server and on bad days."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import grpc
import numpy as np
import pytest
from support import live_bundle
from support.browser import axe
from support.explore_page import NOWHERE, explored
from support.fake_server import FakeServer, running
from support.ports import free_ports
from support.waiting import wait_until

from nann.clients import RetrievalClient
from nann.explore.explorer import Addresses

pytestmark = [pytest.mark.browser, pytest.mark.triton]

IDS = live_bundle.item_ids()


def opened(tab, page):
    tab.goto(page.url)
    tab.wait_for_selector("body[data-ready]")


def pick(tab, name: str) -> None:
    """Types a name and picks the first product that is found, with the keyboard."""
    tab.fill("#search", name)
    tab.wait_for_selector("#found li[role=option]:not(.none)")
    tab.press("#search", "Enter")


def until(tab, condition: str) -> None:
    """Waits for a condition in JavaScript. Playwright's own way evaluates text, which the page's policy forbids."""

    def holds() -> bool:
        tab.wait_for_timeout(10)  # in which the tab's events are handled
        return tab.evaluate(condition)

    wait_until(holds, condition, timeout_s=30)


def answers(tab, after: int) -> None:
    """Waits until more than `after` answers were painted."""
    until(tab, f"Number(document.body.dataset.answers ?? 0) > {after}")


def count(tab) -> int:
    return int(tab.evaluate("document.body.dataset.answers ?? 0"))


def explained(tab) -> None:
    until(
        tab,
        "!document.querySelector('#figures').textContent.includes('…') && !document.querySelector('#play').disabled",
    )


def listed(tab) -> list[int]:
    return [int(row.get_attribute("data-item")) for row in tab.query_selector_all("#results tbody tr")]


@pytest.fixture
def asked(tab, page):
    """A tab in which two products were picked and everything is explained."""
    opened(tab, page)
    pick(tab, "item 1234")
    answers(tab, 0)
    pick(tab, "item 300")
    answers(tab, 1)
    explained(tab)
    return tab


@pytest.fixture(scope="module")
def client(page):
    about = page.get("/api/about")[2]
    with RetrievalClient(about["server"]["grpc"]) as client:
        yield client


def by_score(bundle, history: list[int]) -> list[int]:
    """All items from the best for this history to the worst, by NumPy alone."""
    vectors = bundle.item_vectors
    return np.argsort(-(vectors @ vectors[history].mean(axis=0)), kind="stable").tolist()


def test_what_comes_is_what_the_client_gets(asked, client, bundle):
    result = client.retrieve([int(IDS[1234]), int(IDS[300])])
    assert IDS[listed(asked)].tolist() == result.item_ids[0].tolist()
    assert f"{result.items_scored[0]:,}" in asked.inner_text("#figures")
    places = [
        [cell.inner_text() for cell in row.query_selector_all("td")]
        for row in asked.query_selector_all("#results tbody tr")
    ]
    assert [row[0] for row in places] == [str(place) for place in range(1, 21)]
    exact = by_score(bundle, [1234, 300])
    assert [int(row[3]) for row in places] == [exact.index(item) + 1 for item in listed(asked)]
    found = np.isin(exact[:20], listed(asked)).mean()
    assert f"Coverage@20\n\n{found:.1%}" in asked.inner_text("#figures")
    assert "↺ before" in places[listed(asked).index(1234)][1]


def test_each_list_is_shown(asked, bundle):
    asked.click("label:has(input[value=exhaustive])")
    asked.wait_for_selector("table[aria-label='Exhaustive list']")
    assert listed(asked) == by_score(bundle, [1234, 300])[:20]
    asked.click("label:has(input[value=cascade])")
    asked.wait_for_selector("table[aria-label='Cascade list']")
    assert asked.inner_text("#results thead").split() == ["#", "Product", "Score", "Served", "Exhaustive"]


def test_the_walk_is_played_and_stepped(asked):
    rounds = asked.query_selector_all("#rounds tbody tr")
    last = f"{len(rounds)} / {len(rounds)}"
    assert asked.inner_text("#player output") == last
    asked.focus("#picture")
    asked.keyboard.press("ArrowLeft")
    assert asked.inner_text("#player output") == f"{len(rounds) - 1} / {len(rounds)}"
    asked.keyboard.press("ArrowDown")
    assert "number 1 of the best so far" in asked.inner_text("#tip")
    asked.click("#play")
    assert asked.inner_text("#play") == "Pause"
    until(asked, f"document.querySelector('#player output').textContent === '{last}'")
    until(asked, "document.querySelector('#play').textContent === 'Play'")
    assert "ground layer" in asked.inner_text("#caption")
    for canvas in ("walk", "items"):
        pixels = f"document.querySelector('#{canvas}').getContext('2d').getImageData(0, 0, 900, 900).data"
        assert asked.evaluate(f"Array.from({pixels}).some((each) => each)")


def test_the_table_of_rounds_adds_up_to_the_cost(asked, client):
    result = client.retrieve([int(IDS[1234]), int(IDS[300])])
    asked.click("summary")
    scored = [
        int(row.query_selector_all("td")[3].inner_text().replace(",", ""))
        for row in asked.query_selector_all("#rounds tbody tr")
    ]
    assert sum(scored) == result.items_scored[0]


def test_the_picture_names_what_is_under_the_pointer(asked):
    asked.focus("#picture")
    asked.keyboard.press("ArrowDown")
    name = asked.inner_text("#tip").splitlines()[0]
    tip = asked.query_selector("#tip").bounding_box()
    asked.mouse.move(tip["x"] - 12, tip["y"] + tip["height"] + 10)
    assert asked.inner_text("#tip").splitlines()[0] == name
    assert asked.query_selector("tr.here td:nth-child(2)").inner_text().startswith(name)


def test_a_dial_changes_the_search_and_stands_beside_the_tuned_one(asked, client):
    tuned = client.retrieve([int(IDS[1234]), int(IDS[300])])
    asked.fill("#number-rounds", "1")
    asked.press("#number-rounds", "Enter")
    answers(asked, 2)
    explained(asked)
    turned = client.retrieve([int(IDS[1234]), int(IDS[300])], rounds=[1, 2, 1])
    assert f"{turned.items_scored[0]:,}" in asked.inner_text("#figures")
    assert f"tuned: {tuned.items_scored[0]:,}" in asked.inner_text("#figures")
    bars = [each.get_attribute("aria-label") for each in asked.query_selector_all(".bars svg")]
    assert [text.split(" ")[:2] for text in bars] == [["light", "walk"]] * 2, (
        "this search's stages, and the tuned one's"
    )
    assert "scorer" in bars[1]
    assert "Tuned search" in asked.inner_text(".bars")
    assert re.search(r"scorer [\d.]+ ms, tuned [\d.]+ ms", asked.inner_text("#figures"))
    asked.click("text=tuned 4")
    answers(asked, 3)
    assert "as tuned" in asked.inner_text("#figures")
    explained(asked)
    assert len(asked.query_selector_all(".bars svg")) == 1
    asked.fill("#number-ef", "")
    asked.press("#number-ef", "Enter")
    assert asked.input_value("#number-ef") == "60", "an empty number is the tuned one"


def test_another_entry_has_dials_of_its_own(asked, client):
    asked.click("label:has(input[value=seeds])")
    answers(asked, 2)
    asked.focus("#dial-seeds")
    before = count(asked)
    asked.keyboard.press("ArrowRight")
    answers(asked, before)
    seeds = int(asked.input_value("#number-seeds"))
    result = client.retrieve([int(IDS[1234]), int(IDS[300])], entry="seeds", seeds=seeds)
    assert IDS[listed(asked)].tolist() == result.item_ids[0].tolist()


def test_the_builder_writes_a_filter_and_mistakes_are_shown(asked, client):
    asked.fill("#value", "PRODUCE")
    asked.click("text=Add >> nth=-1")
    answers(asked, 2)
    asked.select_option("#attribute", "price")
    asked.select_option("#operator", "<")
    asked.fill("#value", "40")
    asked.press("#value", "Enter")
    answers(asked, 3)
    text = asked.input_value("#filter")
    assert text == 'department = "PRODUCE" and price < 40'
    asked.check("#exclude")
    answers(asked, 4)
    result = client.retrieve([int(IDS[1234]), int(IDS[300])], filter=text, exclude_history=True)
    assert IDS[listed(asked)].tolist() == result.item_ids[0].tolist()
    assert f"{result.items_matching[0]:,} items may be shown" in asked.inner_text("#notice")
    asked.fill("#filter", "price <")
    asked.wait_for_selector("#filter-wrong:not([hidden])")
    assert "got the end; expected a number" in asked.inner_text("#filter-wrong")
    asked.fill("#filter", "price < 0")
    asked.wait_for_selector("text=No item may be shown")


def test_a_filter_with_a_name_is_asked_for_and_copied(asked, client):
    names = asked.evaluate("[...document.querySelectorAll('#filter-names option')].map((each) => each.value)")
    assert names == ["available_de", "cheap"], "the bundle's and the operator's"
    asked.fill("#filter-name", "cheap")
    answers(asked, 2)
    assert asked.inner_text("#filter-name-about") == "price < 5"
    result = client.retrieve([int(IDS[1234]), int(IDS[300])], filter="price < 5")
    assert IDS[listed(asked)].tolist() == result.item_ids[0].tolist()
    explained(asked)
    assert f"{result.items_matching[0]:,} items that may be shown were scored" in asked.inner_text("#caption")
    asked.click("#copy-python")
    asked.wait_for_selector("text=Copied")
    assert "filter_name='cheap'," in asked.evaluate("navigator.clipboard.readText()")
    asked.fill("#filter-name", 'no "such" <b>')
    asked.press("#filter-name", "Enter")
    asked.wait_for_selector("#filter-name-wrong:not([hidden])")
    assert """filter_name is 'no "such" <b>'; expected one of""" in asked.inner_text("#filter-name-wrong")
    assert asked.get_attribute("#filter-name", "aria-invalid") == "true"
    asked.fill("#filter-name", "")
    answers(asked, 3)
    assert asked.is_hidden("#filter-name-wrong")


def test_where_nothing_may_be_shown_no_figure_is_waited_for(asked):
    asked.fill("#filter", "price < 0")
    answers(asked, 2)
    until(asked, "document.querySelector('#caption').textContent === 'No walk: no item may be shown'")
    until(asked, "!document.querySelector('#figures').textContent.includes('…')")
    assert "Coverage@0\n\n\N{EN DASH}" in asked.inner_text("#figures")
    box = asked.query_selector("#picture").bounding_box()
    for share in np.linspace(0.1, 0.9, 40):  # over the user's own items, which are still drawn
        asked.mouse.move(box["x"] + share * box["width"], box["y"] + 0.5 * box["height"])


def test_an_item_can_be_left_out_and_shown_again(asked, client, bundle):
    first = listed(asked)[0]
    asked.hover("#results tbody tr")
    asked.click("#results tbody tr .hide")
    answers(asked, 2)
    result = client.retrieve([int(IDS[1234]), int(IDS[300])], exclude_item_ids=[int(IDS[first])])
    assert IDS[listed(asked)].tolist() == result.item_ids[0].tolist()
    assert first not in listed(asked)
    explained(asked)
    exact = [item for item in by_score(bundle, [1234, 300]) if item != first]
    place = exact.index(listed(asked)[0]) + 1
    assert asked.query_selector("#results tbody td:nth-child(4)").inner_text() == str(place), "in the list without it"
    asked.click(f"[aria-label='Show item {first} again']")
    answers(asked, 3)
    assert listed(asked)[0] == first


def test_copies_run(asked):
    asked.click("#copy-python")
    asked.wait_for_selector("text=Copied")
    program = asked.evaluate("navigator.clipboard.readText()")
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert str(IDS[listed(asked)[0]]) in ended.stdout
    asked.click("#copy-curl")
    until(asked, "navigator.clipboard.readText().then((text) => text.startsWith('curl'))")
    answer = json.loads(
        subprocess.run(
            asked.evaluate("navigator.clipboard.readText()"), shell=True, capture_output=True, timeout=60, check=True
        ).stdout
    )
    assert next(each["data"] for each in answer["outputs"] if each["name"] == "item_ids") == IDS[listed(asked)].tolist()


def test_a_user_of_the_store_and_one_that_it_does_not_know(tab, page, client):
    opened(tab, page)
    tab.fill("#user-id", "17")
    tab.press("#user-id", "Enter")
    answers(tab, 0)
    explained(tab)
    assert IDS[listed(tab)].tolist() == client.retrieve(user_id="17").item_ids[0].tolist()
    assert tab.query_selector_all(".pill.before")
    tab.fill("#user-id", "nobody")
    tab.press("#user-id", "Enter")
    answers(tab, 1)
    assert "knows no behaviours of user “nobody”" in tab.inner_text("#notice")


def test_a_product_that_is_not_there_and_a_chip_that_goes(tab, page):
    opened(tab, page)
    tab.fill("#search", "no such thing")
    tab.wait_for_selector("text=No product with “no such thing”")
    pick(tab, str(IDS[77]))
    answers(tab, 0)
    assert "item 77" in tab.inner_text("#history")
    tab.click("[aria-label='Remove item 77']")
    tab.wait_for_selector("text=Whose next products?")


def test_health_is_live(asked):
    asked.wait_for_selector("#shares", timeout=10_000)
    assert "requests since the start" in asked.inner_text("#health")
    until(asked, "document.querySelectorAll('#health svg path').length >= 4")


def focused(tab) -> str:
    return tab.evaluate("document.activeElement.getAttribute('aria-label') ?? document.activeElement.textContent")


def test_the_keyboard_gets_through_the_list_and_past_it(asked):
    names = [row.query_selector(".item").inner_text() for row in asked.query_selector_all("#results tbody tr")]
    asked.focus("#results .scroll")
    said = []
    for key in ("Tab", "ArrowDown", "ArrowDown", "ArrowUp", "Tab"):
        asked.keyboard.press(key)
        said.append(focused(asked))
    assert said == [names[0], names[1], names[2], names[1], f"Leave out {names[1]}"]
    asked.keyboard.press("Enter")
    answers(asked, 2)
    explained(asked)
    assert focused(asked) == f"Leave out {names[2]}", "the focus stays in its place"
    asked.keyboard.press("Tab")
    asked.keyboard.press("Tab")
    assert focused(asked) == "The walk through the items, as a picture"
    asked.focus(f"[aria-label='Show {names[1]} again']")
    asked.keyboard.press("Enter")
    assert asked.evaluate("document.activeElement.id") == "exclude"
    asked.focus("[aria-label='Remove item 1234']")
    asked.keyboard.press("Enter")
    assert focused(asked) == "Remove item 300"
    asked.keyboard.press("Enter")
    assert asked.evaluate("document.activeElement.id") == "search"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1600, 1000, 400])
def test_nothing_bars_people(tab, page, scheme, width):
    tab.emulate_media(color_scheme=scheme)
    tab.set_viewport_size({"width": width, "height": 900})
    opened(tab, page)
    pick(tab, "item 40")
    answers(tab, 0)
    explained(tab)
    tab.click("summary")
    tab.evaluate(axe().replace("</script", "<\\/script"))
    found = tab.evaluate("axe.run(document).then((found) => found.violations)")
    assert [(each["id"], each["nodes"][0]["html"]) for each in found if each["impact"] in ("serious", "critical")] == []
    assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth"), "nothing to scroll sideways"


def test_the_theme_can_be_chosen(tab, page):
    tab.emulate_media(color_scheme="light")
    opened(tab, page)
    themes = []
    for _ in range(3):
        themes.append(tab.evaluate("document.documentElement.dataset.theme"))
        tab.click("#theme")
    assert themes == ["light", "light", "dark"]


def test_a_server_that_goes_away_and_comes_back(tab, bundle, tmp_path):
    (port,) = free_ports(1)
    addresses = Addresses(f"127.0.0.1:{port}", NOWHERE.http, NOWHERE.metrics)
    fake = FakeServer(settings={"bundle": bundle.bundle_id, "item_id_kind": "numbers"})
    with explored(bundle, tmp_path, addresses, timeout_s=2) as page:
        opened(tab, page)
        pick(tab, "item 1")
        tab.wait_for_selector("text=The server does not answer.")
        tab.wait_for_selector("#server[data-state=away]")
        assert "no metrics at" in tab.inner_text("#health")
        with running(fake, port):
            answers(tab, 0)
            tab.wait_for_selector("#server[data-state=ready]")
            assert tab.is_hidden("#notice") or "does not answer" not in tab.inner_text("#notice")


def test_a_page_whose_own_server_has_ended_says_so(tab, bundle, tmp_path):
    fake = FakeServer(settings={"bundle": bundle.bundle_id, "item_id_kind": "numbers"})
    with running(fake) as address, explored(bundle, tmp_path, Addresses(address, *[NOWHERE.http] * 2)) as page:
        opened(tab, page)
        pick(tab, "item 1")
        answers(tab, 0)
    for button in ("#copy-curl", "#copy-python"):
        tab.click(button)
        tab.wait_for_selector("#toast:has-text('own server has ended')")


def test_an_overloaded_server_is_asked_again(tab, bundle, tmp_path):
    full = (grpc.StatusCode.UNAVAILABLE, "Exceeds maximum queue size")
    fake = FakeServer([full, full], settings={"bundle": "another", "item_id_kind": "numbers"})
    with running(fake) as address, explored(bundle, tmp_path, Addresses(address, *[NOWHERE.http] * 2)) as page:
        opened(tab, page)
        pick(tab, "item 1")
        tab.wait_for_selector("text=The server is overloaded")
        answers(tab, 0)
        assert len(fake.requests) == 3
        assert "the server answers from another bundle, another" in tab.inner_text("#corpus")
