"""Installs the fake Triton before a model is imported, and makes a tiny bundle."""

from __future__ import annotations

import functools
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from support import changing_bundle, tiny_bundle, triton_fakes
from support.catalog_sites import STREAM_KEY, Site
from support.redis_server import running_redis
from support.tiny_requests import score
from support.triton_fakes import SEARCH_PARAMETERS

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


@pytest.fixture
def model(model_args, monkeypatch):
    """The model `beam_retrieval` beside a scorer that answers its calls."""
    from nann.python_backend.models.beam_retrieval import TritonPythonModel

    monkeypatch.setattr(triton_fakes.InferenceRequest, "answer", score)
    monkeypatch.setattr(triton_fakes.InferenceRequest, "calls", [])
    model = TritonPythonModel()
    model.initialize(model_args("beam_retrieval", **SEARCH_PARAMETERS))
    yield model
    model.finalize()  # its thread sends metrics no more


@pytest.fixture
def seeded_model(tmp_path, monkeypatch):
    """Files of a bundle with a light score; like ours, the scorer reads the start of the user states."""
    from nann.python_backend.models.beam_retrieval import TritonPythonModel
    from nann.python_backend.repository.install import install_bundle

    install_bundle(tiny_bundle.make_bundle(tmp_path / "bundle", light=True).path, tmp_path / "repository")

    def score_start(call):
        states, candidates = call.inputs["user_state"][:, : tiny_bundle.LENGTH], call.inputs["candidates"]
        scores = -np.abs(candidates - states.mean(axis=1, keepdims=True)).astype(np.float32)
        return triton_fakes.InferenceResponse([triton_fakes.Tensor("candidate_scores", scores)])

    monkeypatch.setattr(triton_fakes.InferenceRequest, "answer", score_start)
    monkeypatch.setattr(triton_fakes.InferenceRequest, "calls", [])
    model = TritonPythonModel()
    config = {
        "name": "beam_retrieval",
        "parameters": {key: {"string_value": value} for key, value in SEARCH_PARAMETERS.items()},
    }
    model.initialize(
        {
            "model_name": "beam_retrieval",
            "model_version": "1",
            "model_repository": str(tmp_path / "repository" / "beam_retrieval"),
            "model_config": json.dumps(config),
        }
    )
    yield model
    model.finalize()


@pytest.fixture(scope="session")
def shared_bundle(tmp_path_factory):
    return changing_bundle.make_bundle(tmp_path_factory.mktemp("made") / "bundle")


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory):
    with running_redis(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def redis(redis_server, monkeypatch):
    """A Redis without data, which the catalogs that start from now on follow, without long waits."""
    from nann.python_backend import catalog_replica

    monkeypatch.setattr(catalog_replica, "_WAIT_S", 0.05)
    monkeypatch.setattr(catalog_replica, "_PAUSE_S", 0.05)
    monkeypatch.setenv("NANN_CATALOG_STREAM", f"{redis_server.url}/{STREAM_KEY}")
    redis_server.client.flushall()
    return redis_server


@pytest.fixture
def sites(shared_bundle, redis, tmp_path):
    """Makes so many sites, which do not run yet."""
    made = []

    def make(count):
        made.extend(Site(shared_bundle, tmp_path / f"repository {number}") for number in range(count))
        return made

    yield make
    for site in made:
        site.stop()
