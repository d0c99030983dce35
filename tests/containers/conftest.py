"""An engine, base images and two bundles, for all tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support import live_bundle
from support.container_engine import Engine, debian_image, running_engine

from nann.bundle import Bundle


@pytest.fixture(scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    with running_engine(tmp_path_factory.mktemp("engine")) as engine:
        yield engine


@pytest.fixture(scope="session")
def debian(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> str:
    return debian_image(engine, "debian:bookworm-slim", tmp_path_factory.mktemp("debian"))


@pytest.fixture(scope="session")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Bundle]:
    """Two bundles whose answers differ for every user."""
    folder: Path = tmp_path_factory.mktemp("bundles")
    return {name: live_bundle.make_bundle(folder / name, seed) for name, seed in (("first", 1), ("second", 2))}
