"""The page of `nann explore` on bad days: the server away or overloaded, the page's own server ended."""

from __future__ import annotations

from contextlib import contextmanager

import grpc
import pytest
from support.explore_page import NOWHERE, explored
from support.explore_tab import answers, explained, opened, pick
from support.fake_server import FakeServer, running
from support.ports import free_ports

from nann.explore.explorer import Addresses

pytestmark = [pytest.mark.browser, pytest.mark.triton]


def settings_of(bundle):
    return {"bundle": bundle.bundle_id, "item_id_kind": "numbers"}


@contextmanager
def asking(tab, bundle, folder, fake):
    """The page has sent a first question to this server."""
    with running(fake) as address, explored(bundle, folder, Addresses(address, *[NOWHERE.http] * 2)) as page:
        opened(tab, page)
        pick(tab, "item 1")
        yield


def test_a_server_that_goes_away_and_comes_back(tab, bundle, tmp_path):
    (port,) = free_ports(1)
    addresses = Addresses(f"127.0.0.1:{port}", NOWHERE.http, NOWHERE.metrics)
    fake = FakeServer(settings=settings_of(bundle))
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
    with asking(tab, bundle, tmp_path, FakeServer(settings=settings_of(bundle))):
        answers(tab, 0)
    for button in ("#copy-curl", "#copy-python"):
        tab.click(button)
        tab.wait_for_selector("#toast:has-text('own server has ended')")


def test_an_answer_that_can_not_be_explained_here_stands_alone(tab, bundle, tmp_path):
    with asking(tab, bundle, tmp_path, FakeServer(settings=settings_of(bundle))):
        answers(tab, 0)
        explained(tab)
        tab.fill("#user-id", "17")  # there is no store
        tab.press("#user-id", "Enter")
        tab.wait_for_selector("text=The answer can't be explained: the history of user '17' can't be read here")
        assert not tab.is_enabled("#play"), "the walk of the question before is gone"
        assert tab.inner_text("#caption") == ""
        assert "…" not in tab.inner_text("#figures") + tab.inner_text("#results")


def test_an_overloaded_server_is_asked_again(tab, bundle, tmp_path):
    full = (grpc.StatusCode.UNAVAILABLE, "Exceeds maximum queue size")
    fake = FakeServer([full, full], settings=settings_of(bundle) | {"bundle": "another"})
    with asking(tab, bundle, tmp_path, fake):
        tab.wait_for_selector("text=The server is overloaded")
        answers(tab, 0)
        assert len(fake.requests) == 3
        tab.wait_for_selector("text=Of the server's items 9 may be shown, of those known here 4,000")
        assert "the server answers from another bundle, another" in tab.inner_text("#corpus")


def test_a_server_with_another_search_of_the_same_files_is_told_apart(tab, bundle, tmp_path):
    fake = FakeServer(settings=settings_of(bundle) | {"bundle_identity": bundle.identity})
    with asking(tab, bundle, tmp_path, fake):
        tab.wait_for_selector("#server[data-state=ready]")
        assert tab.inner_text("#corpus") == f"4,000 items · bundle {bundle.bundle_id}"
        fake.settings["bundle_identity"] = "tuned and deployed"
        tab.wait_for_selector("#corpus:has-text('copy of this bundle is tuned otherwise: start again')")
