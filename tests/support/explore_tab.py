"""What tests do in a tab of the page of `nann explore`; `tab` is Playwright's `Page`."""

from __future__ import annotations

from typing import Any

import numpy as np

from nann.bundle import Bundle
from support.explore_page import Page
from support.waiting import wait_until


def opened(tab: Any, page: Page) -> None:
    """Opens the page."""
    tab.goto(page.url)
    tab.wait_for_selector("body[data-ready]")


def pick(tab: Any, name: str) -> None:
    """Types a name and picks the first product that is found, with the keyboard."""
    tab.fill("#search", name)
    tab.wait_for_selector("#found li[role=option]:not(.none)")
    tab.press("#search", "Enter")


def until(tab: Any, condition: str) -> None:
    """Waits for a condition in JavaScript. Playwright's own way evaluates text, which the page's policy forbids."""

    def holds() -> bool:
        tab.wait_for_timeout(10)  # in which the tab's events are handled
        return bool(tab.evaluate(condition))

    wait_until(holds, condition, timeout_s=30)


def answers(tab: Any, after: int) -> None:
    """Waits until more than `after` answers were painted."""
    until(tab, f"Number(document.body.dataset.answers ?? 0) > {after}")


def count(tab: Any) -> int:
    """How many answers were painted."""
    return int(tab.evaluate("document.body.dataset.answers ?? 0"))


def explained(tab: Any) -> None:
    """Waits until all that explains an answer is there."""
    until(
        tab,
        "!document.querySelector('#figures').textContent.includes('…') && !document.querySelector('#play').disabled",
    )


def listed(tab: Any) -> list[int]:
    """The items of the list that is shown."""
    return [int(row.get_attribute("data-item")) for row in tab.query_selector_all("#results tbody tr")]


def by_score(bundle: Bundle, history: list[int]) -> list[int]:
    """All items from the best for this history to the worst, by NumPy alone."""
    vectors = bundle.item_vectors
    order: list[int] = np.argsort(-(vectors @ vectors[history].mean(axis=0)), kind="stable").tolist()
    return order
