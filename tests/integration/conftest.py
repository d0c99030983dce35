"""One live Triton for all tests of this folder that only send requests to it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import live_bundle
from support.own_server import own_server
from support.stored_users import write_store

from nann.bundle import Bundle


@pytest.fixture(scope="session")
def live_bundle_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return live_bundle.make_bundle(tmp_path_factory.mktemp("live") / "bundle").path


@pytest.fixture(scope="session")
def bundle(live_bundle_path: Path) -> Bundle:
    return Bundle.open(live_bundle_path)


@pytest.fixture(scope="session")
def server(live_bundle_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator:
    folder = tmp_path_factory.mktemp("server")
    store = write_store(folder / "histories")
    with own_server(live_bundle_path, folder, admin_key=None, histories=str(store)) as server:
        yield server


@pytest.fixture(scope="session", params=["grpc", "http"])
def client(request: pytest.FixtureRequest, server) -> Iterator:
    """Our client, once per protocol."""
    from nann.clients import RetrievalClient

    url = server.grpc_url if request.param == "grpc" else server.http_url
    with contextlib.closing(RetrievalClient(url, request.param, timeout_s=20)) as client:
        yield client
