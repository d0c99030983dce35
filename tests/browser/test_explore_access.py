"""The page of `nann explore` for everybody: by keyboard, for screen readers, light and dark, narrow and wide."""

from __future__ import annotations

import pytest
from support.browser import axe
from support.explore_tab import answers, explained, opened, pick

pytestmark = [pytest.mark.browser, pytest.mark.triton]


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


def test_keys_of_the_browser_and_of_input_methods_stay_theirs(asked):
    shown = asked.inner_text("#player output")
    press = """([id, key, more]) => {
      const event = new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true, ...more });
      return document.getElementById(id).dispatchEvent(event);
    }"""
    for held in ("ctrlKey", "metaKey", "altKey"):
        for key in ("+", "-", "0", "ArrowLeft"):
            assert asked.evaluate(press, ["picture", key, {held: True}]), (held, key)
    assert asked.inner_text("#player output") == shown
    assert not asked.evaluate(press, ["picture", "ArrowLeft", {}])
    asked.fill("#search", "item 5")
    asked.wait_for_selector("#found li[role=option]:not(.none)")
    assert asked.evaluate(press, ["search", "Enter", {"isComposing": True}])
    assert asked.is_visible("#found"), "what was typed is no choice yet"


def test_an_arrow_key_moves_a_dial_where_its_numbers_are_small(asked):
    asked.fill("#number-top_k", "5")
    asked.press("#number-top_k", "Enter")
    answers(asked, 2)
    asked.focus("#dial-top_k")
    for answered, (key, value) in enumerate({"ArrowRight": "6", "ArrowLeft": "5", "ArrowDown": "4"}.items()):
        asked.keyboard.press(key)
        assert asked.input_value("#number-top_k") == value
        answers(asked, 3 + answered)


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
