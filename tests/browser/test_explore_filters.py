"""What may be shown on the page of `nann explore`: filters as text, filters with a name, items that are left out."""

from __future__ import annotations

import numpy as np
import pytest
from support import live_bundle
from support.explore_tab import answers, by_score, explained, listed, until

pytestmark = [pytest.mark.browser, pytest.mark.triton]

IDS = live_bundle.item_ids()


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


def test_names_that_an_operator_sets_meanwhile_are_found(asked, client, operator):
    operator.set("dear", "price > 20")
    try:
        asked.focus("#filter-name")
        until(asked, "document.querySelector('#filter-names option[value=dear]') !== null")
        assert asked.get_attribute("#filter-name", "placeholder") == "one of 3, or another"
        asked.fill("#filter-name", "dear")  # known, so it is taken as it is typed
        answers(asked, 2)
        assert asked.inner_text("#filter-name-about") == "price > 20"
        result = client.retrieve([int(IDS[1234]), int(IDS[300])], filter="price > 20")
        assert IDS[listed(asked)].tolist() == result.item_ids[0].tolist()
    finally:
        operator.remove("dear")
    asked.fill("#filter-name", "")
    answers(asked, 3)
    asked.focus("#filter")
    asked.focus("#filter-name")
    until(asked, "document.querySelector('#filter-names option[value=dear]') === null")


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
