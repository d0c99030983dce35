"""The page of `nann explore` in Chromium, beside a live server."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import numpy as np
import pytest
from support import live_bundle
from support.explore_tab import answers, by_score, count, explained, listed, opened, pick, until

pytestmark = [pytest.mark.browser, pytest.mark.triton]

IDS = live_bundle.item_ids()


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


def test_an_answer_that_is_too_short_misses_what_it_lacks(asked, client, bundle):
    asked.click("label:has(input[value=seeds])")
    answers(asked, 2)
    for number, (name, value) in enumerate({"rounds": 0, "seeds": 1}.items()):
        asked.fill(f"#number-{name}", str(value))
        asked.press(f"#number-{name}", "Enter")
        answers(asked, 3 + number)
    explained(asked)
    result = client.retrieve([int(IDS[1234]), int(IDS[300])], entry="seeds", seeds=1, rounds=0)
    found = np.flatnonzero(np.isin(IDS, result.item_ids[0])).tolist()
    assert sorted(listed(asked)) == found
    assert 0 < len(found) < 20
    assert f"The search found {len(found)} of the 20 items asked for." in asked.inner_text("#notice")
    exact = by_score(bundle, [1234, 300])[:20]
    assert f"Coverage@20\n\n{np.isin(exact, found).mean():.1%}" in asked.inner_text("#figures")
    asked.click("label:has(input[value=exhaustive])")
    assert listed(asked) == exact


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
