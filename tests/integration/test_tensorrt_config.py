"""Triton itself reads the configurations that are made for the target `tensorrt`, and runs their warm-up.

The wheel's Triton has no TensorRT backend, and there is no GPU here. So the Python backend runs the scorer and the user
encoder of the same configurations on the CPU. Everything else is as installed.
"""

from __future__ import annotations

import re

import numpy as np
import pytest
from support.live_bundle import ITEMS, item_ids, make_bundle
from support.own_server import server_options
from support.reference import OfflineEnsemble
from support.tiny_bundle import make_plans

from nann.bundle import WARMUP_FILES, Bundle, write_manifest
from nann.clients import RetrievalClient
from nann.errors import ServerError
from nann.python_backend.repository.configs import check_target
from nann.python_backend.repository.install import install_bundle
from nann.python_backend.server.triton import TritonServer
from nann.python_backend.server.triton_install import TritonInstall
from nann.shape_grid import ShapeGrid

pytestmark = pytest.mark.triton

GRID = ShapeGrid((1, 4, 16), (64, 512))


@pytest.fixture(scope="module", params=[False, True], ids=["item table", "item rows"])
def bundle(request, tmp_path_factory):
    made = make_bundle(tmp_path_factory.mktemp("tensorrt") / "bundle", item_rows=request.param)
    rng = np.random.default_rng(0)
    rows = {"behaviors": rng.integers(10, ITEMS, 12), "profile_codes": np.zeros(1), "user_state": rng.normal(size=17)}
    if request.param:
        rows["candidate_rows"] = rng.normal(size=(300, 17))
    else:
        rows["candidates"] = rng.integers(10, ITEMS, 300)
    for name, row in rows.items():
        np.save(made.path / WARMUP_FILES[name], row)
    manifest = {**made.manifest, "shape_grid": GRID.to_manifest()}
    return write_manifest(made.path, manifest, [*made.manifest["files"], *(WARMUP_FILES[name] for name in rows)])


@pytest.fixture(scope="module")
def repository(bundle, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tensorrt_server")
    repository = folder / "repository"
    install_bundle(bundle.path, repository, plans=make_plans(folder / "plans", bundle))
    check_target(repository, "tensorrt")
    for model in bundle.exported_models:
        config = repository / model / "configs" / "tensorrt.pbtxt"
        text = config.read_text().replace(
            'platform: "tensorrt_plan"', 'backend: "python" default_model_filename: "torch_model.py"'
        )
        config.write_text(re.sub(r"kind: KIND_GPU count: 1 profile: \[.*?\]", "kind: KIND_CPU count: 1", text))
    return repository


@pytest.fixture
def make_server(repository, monkeypatch):
    monkeypatch.setattr(TritonInstall, "check_target", lambda self, target: None)
    return lambda: TritonServer(server_options(repository.parent, target="tensorrt"))


def test_it_is_loaded_warmed_up_and_answers_as_the_search_offline(make_server, bundle):
    offline = OfflineEnsemble(Bundle.open(bundle.path))
    rng = np.random.default_rng(1)
    with make_server() as server, RetrievalClient(server.grpc_url, timeout_s=30) as client:
        for users in (1, 3, 16):
            asked = [item_ids()[rng.integers(10, ITEMS, rng.integers(1, 30))].tolist() for _ in range(users)]
            result = client.retrieve(asked)
            for row, ids in enumerate(asked):
                items, scores, scored = offline.retrieve(ids)
                np.testing.assert_array_equal(result.item_ids[row], items)
                np.testing.assert_allclose(result.scores[row], scores, rtol=1e-5, atol=1e-5)
                assert result.items_scored[row] == scored


@pytest.mark.slow
def test_triton_compares_the_warm_up_files_with_their_shapes(make_server, repository):
    """A wrong warm-up stops the start, so the start of the server above proves the warm-up right."""
    (path,) = (repository / "scorer" / "warmup").glob("candidate*.512")
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(ServerError, match="warmup"), make_server():
        pass
