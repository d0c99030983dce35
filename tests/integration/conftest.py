"""One live Triton for all tests of this folder that only ask it questions."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import live_bundle

from nann.bundle import Bundle


@pytest.fixture(scope="session")
def live_bundle_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return live_bundle.make_bundle(tmp_path_factory.mktemp("live") / "bundle").path


@pytest.fixture(scope="session")
def bundle(live_bundle_path: Path) -> Bundle:
    return Bundle.open(live_bundle_path)


@pytest.fixture(scope="session")
def server(live_bundle_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator:
    from support.ports import free_ports

    from nann.python_backend.repository.install import install_bundle
    from nann.python_backend.server.triton import ServerOptions, TritonServer

    folder = tmp_path_factory.mktemp("server")
    install_bundle(live_bundle_path, folder / "repository")
    options = ServerOptions(folder / "repository", "127.0.0.1", *free_ports(3), log_file=folder / "triton.log")
    with TritonServer(options) as server:
        yield server


@pytest.fixture(scope="session", params=["grpc", "http"])
def client(request: pytest.FixtureRequest, server) -> Iterator:
    """Our client, over both protocols."""
    from nann.clients import RetrievalClient

    url = server.grpc_url if request.param == "grpc" else server.http_url
    with contextlib.closing(RetrievalClient(url, request.param, timeout_s=20)) as client:
        yield client
