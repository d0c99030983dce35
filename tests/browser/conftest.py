"""One Chromium and one live server for all tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support import live_bundle
from support.browser import chromium
from support.explore_page import Page, explored
from support.explore_tab import answers, explained, opened, pick
from support.own_server import own_server
from support.stored_users import write_store

from nann.bundle import Bundle
from nann.clients import RetrievalClient
from nann.explore.explorer import Addresses
from nann.filters import NamedFilters


@pytest.fixture(scope="session")
def browser() -> Iterator:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return live_bundle.make_bundle(tmp_path_factory.mktemp("live") / "bundle")


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the server, with its repository."""
    return tmp_path_factory.mktemp("server")


@pytest.fixture(scope="session")
def operator(folder: Path) -> NamedFilters:
    """The filters that the server's operator has named."""
    filters = NamedFilters.of_repository(folder / "repository")
    filters.set("cheap", "price < 5")
    return filters


@pytest.fixture(scope="session")
def page(bundle: Bundle, folder: Path, operator: NamedFilters) -> Iterator[Page]:
    """The page beside a live server with a store of histories."""
    store = str(write_store(folder / "histories"))
    with own_server(bundle.path, folder, admin_key=None, histories=store) as server:
        addresses = Addresses(server.grpc_url, server.http_url, server.metrics_url)
        known = {"histories": store, "repository": folder / "repository"}
        with explored(bundle, folder / "cache", addresses, **known) as page:
            yield page


@pytest.fixture
def tab(browser) -> Iterator:
    """A fresh tab; the test fails if its console says anything."""
    context = browser.new_context(
        viewport={"width": 1600, "height": 960}, permissions=["clipboard-read", "clipboard-write"]
    )
    tab = context.new_page()
    said: list[str] = []
    tab.on("console", lambda message: said.append(message.text))
    tab.on("pageerror", lambda error: said.append(str(error)))
    yield tab
    context.close()
    # Chromium itself notes each answer that is no 200, which tests of errors bring about.
    assert [text for text in said if "Failed to load resource" not in text] == []


@pytest.fixture
def asked(tab, page: Page):
    """A tab in which two products were picked and everything is explained."""
    opened(tab, page)
    pick(tab, "item 1234")
    answers(tab, 0)
    pick(tab, "item 300")
    answers(tab, 1)
    explained(tab)
    return tab


@pytest.fixture(scope="session")
def client(page: Page) -> Iterator[RetrievalClient]:
    about = page.get("/api/about")[2]
    with RetrievalClient(about["server"]["grpc"]) as client:
        yield client
