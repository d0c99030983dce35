"""The target `torch` on the CPU, live: `nann serve --target torch` answers like the target `embedded`."""

import numpy as np
import pytest
from support import observed
from support.live_bundle import ITEMS, item_ids
from support.own_server import edited, server_options
from support.reference import OfflineEnsemble

from nann.clients import RetrievalClient
from nann.errors import RequestError
from nann.python_backend.repository.configs import check_target
from nann.python_backend.repository.install import install_bundle
from nann.python_backend.server.triton import TritonServer

pytestmark = pytest.mark.triton

TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def torch_server(live_bundle_path, tmp_path_factory):
    """Its quality monitor compares every user that its load allows."""
    folder = tmp_path_factory.mktemp("torch_server")
    install_bundle(live_bundle_path, folder / "repository")
    check_target(folder / "repository", "torch")
    made = folder / "repository" / "beam_retrieval" / "configs" / "torch.pbtxt"
    with edited(made, quality_share=1, quality_load=1):
        pass
    with TritonServer(server_options(folder, target="torch")) as server:
        text = server.options.log_file.read_text()
        assert "user_encoder: torch on cpu, 0 CUDA graphs" in text
        assert "scorer: torch on cpu, 0 CUDA graphs" in text
        yield server


@pytest.fixture(scope="module")
def torch_client(torch_server):
    with RetrievalClient(torch_server.grpc_url, timeout_s=30) as client:
        yield client


@pytest.fixture(scope="module")
def embedded_client(server):
    with RetrievalClient(server.grpc_url, timeout_s=30) as client:
        yield client


def users(count, seed):
    rng = np.random.default_rng(seed)
    return [item_ids()[rng.integers(10, ITEMS, rng.integers(1, 30))].tolist() for _ in range(count)]


@pytest.mark.parametrize(
    ("count", "parameters"),
    [(1, {}), (3, {}), (16, {}), (5, {"top_k": 150, "ef": (30, 90, 200), "rounds": (1, 3, 6)}), (2, {"top_k": 7})],
)
def test_it_answers_as_the_embedded_target(torch_client, embedded_client, count, parameters):
    asked = users(count, seed=count)
    got, expected = (client.retrieve(asked, **parameters) for client in (torch_client, embedded_client))
    np.testing.assert_array_equal(got.item_ids, expected.item_ids)
    np.testing.assert_allclose(got.scores, expected.scores, rtol=TOLERANCE, atol=TOLERANCE)
    np.testing.assert_array_equal(got.items_scored, expected.items_scored)


def test_and_as_the_search_offline(torch_client, bundle):
    offline = OfflineEnsemble(bundle)
    for ids in (*users(5, seed=9), [], [5, 6]):
        result, (items, scores, scored) = torch_client.retrieve(ids), offline.retrieve(ids or [0])
        np.testing.assert_array_equal(result.item_ids[0], items)
        np.testing.assert_allclose(result.scores[0], scores, rtol=TOLERANCE, atol=TOLERANCE)
        assert result.items_scored[0] == scored


def test_a_request_that_fails_harms_no_other(torch_client):
    (good,) = users(1, seed=1)
    with pytest.raises(RequestError, match="top_k"):
        torch_client.retrieve(good, top_k=1001)
    assert torch_client.retrieve(good).item_ids.shape == (1, 20)


def test_the_quality_monitor_gets_user_states_though_they_are_on_a_device(torch_client, torch_server):
    """With row numbers instead of user states it would find almost nothing."""
    torch_client.retrieve(users(3, seed=2))
    metrics = observed.metrics_when(torch_server, lambda now: now("nann_quality_users_total", result="compared") >= 3)
    assert metrics("nann_quality_users_total", result="failed") == 0
    assert metrics("nann_quality_items_found_total") > 0.7 * metrics("nann_quality_items_wanted_total")
