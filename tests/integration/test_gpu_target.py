"""The target `torch` on a GPU: compared with the CPU, and served. `make test-gpu` runs it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from support.live_bundle import ITEMS, item_ids, make_bundle
from support.own_server import server_options
from support.reference import OfflineEnsemble

from nann.bundle import Bundle, write_manifest
from nann.clients import RetrievalClient
from nann.python_backend.engines.torch_runner import load_runner
from nann.python_backend.repository.install import install_bundle
from nann.python_backend.server.triton import TritonServer
from nann.shape_grid import ShapeGrid
from nann.signature import SCORER, USER_ENCODER

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU")]

GRID = ShapeGrid((1, 4, 16), (64, 512))
TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    made = make_bundle(tmp_path_factory.mktemp("gpu") / "bundle")
    manifest = {**made.manifest, "shape_grid": GRID.to_manifest()}
    return write_manifest(made.path, manifest, made.manifest["files"])


@pytest.fixture(scope="module")
def repository(bundle, tmp_path_factory):
    folder = tmp_path_factory.mktemp("gpu") / "repository"
    install_bundle(bundle.path, folder)
    return folder


def test_every_shape_has_a_graph_and_scores_as_the_cpu(repository, bundle):
    folder, rng = repository / SCORER.name / "1", np.random.default_rng(0)
    on_gpu = load_runner(folder, SCORER.name, torch.device("cuda"))
    on_cpu = load_runner(folder, SCORER.name, torch.device("cpu"))
    assert on_gpu.graph_count == len(GRID.points)
    for users, width in [*GRID.points, (3, 77)]:  # the last one has no graph
        inputs = {
            "user_state": torch.from_numpy(rng.normal(size=(users, bundle.user_state_width)).astype(np.float32)),
            "candidates": torch.from_numpy(rng.integers(-1, ITEMS, (users, width)).astype(np.int32)),
        }
        inputs["user_state"][:, -1] = 0
        expected = on_cpu.run(inputs).clone()
        for _ in range(2):  # a replay must not depend on the one before
            torch.testing.assert_close(on_gpu.run(inputs).cpu(), expected, rtol=TOLERANCE, atol=TOLERANCE)


def test_the_user_encoder_too(repository, bundle):
    folder, rng = repository / USER_ENCODER.name / "1", np.random.default_rng(0)
    runners = [load_runner(folder, USER_ENCODER.name, torch.device(name)) for name in ("cuda", "cpu")]
    for users in GRID.batch_sizes:
        behaviors = torch.from_numpy(rng.integers(-1, ITEMS, (users, bundle.sequence_length)).astype(np.int32))
        inputs = {"behaviors": behaviors, "profile_codes": torch.zeros(users, 1, dtype=torch.int32)}
        got, expected = (runner.run(inputs).cpu() for runner in runners)
        torch.testing.assert_close(got, expected, rtol=TOLERANCE, atol=TOLERANCE, equal_nan=True)


@pytest.mark.triton
def test_served_with_user_states_on_the_gpu(repository, bundle, tmp_path):
    offline, rng = OfflineEnsemble(Bundle.open(bundle.path)), np.random.default_rng(1)
    options = server_options(repository.parent, target="torch")
    with TritonServer(options) as server, RetrievalClient(server.grpc_url, timeout_s=60) as client:
        assert f"scorer: torch on cuda:0, {len(GRID.points)} CUDA graphs" in options.log_file.read_text()
        for users in (1, 3, 16):
            asked = [item_ids()[rng.integers(10, ITEMS, rng.integers(1, 30))].tolist() for _ in range(users)]
            result = client.retrieve(asked)
            for row, ids in enumerate(asked):
                items, scores, _ = offline.retrieve(ids)
                np.testing.assert_allclose(result.scores[row], scores, rtol=TOLERANCE, atol=TOLERANCE)
                assert np.isin(result.item_ids[row], items).mean() > 0.9  # items with nearly equal scores may swap
            shown = client.retrieve(asked, exclude_history=True, filter="price < 20")
            for row, ids in enumerate(asked):
                assert not np.isin(shown.item_ids[row], ids).any()
            assert (shown.items_matching < result.items_matching).all()
