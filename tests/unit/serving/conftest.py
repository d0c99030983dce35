"""Installs the fake Triton before a model is imported, and makes a tiny bundle."""

from __future__ import annotations

import functools
import sys
from pathlib import Path

import pytest
from support import tiny_bundle, triton_fakes

sys.modules.setdefault("triton_python_backend_utils", triton_fakes)


@pytest.fixture(scope="session")
def bundle_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bundle.make_bundle(tmp_path_factory.mktemp("bundle") / "bundle").path


@pytest.fixture(scope="session")
def repository(bundle_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from nann.python_backend.repository.install import install_bundle

    path = tmp_path_factory.mktemp("repository")
    install_bundle(bundle_path, path)
    return path


@pytest.fixture
def model_args(repository: Path):
    """Arguments of a model's `initialize`."""
    return functools.partial(triton_fakes.arguments_of, repository)
