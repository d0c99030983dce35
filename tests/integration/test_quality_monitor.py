"""The quality monitor against a live server: it agrees with offline coverage, detects a broken graph and is bounded."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from support import observed
from support.own_server import own_server
from support.reference import OfflineEnsemble

from nann.bundle import write_manifest
from nann.clients import RetrievalClient
from nann.exact_search import exact_search
from nann.metrics import coverage
from nann.search_input import UserBatch

pytestmark = pytest.mark.triton

EVERYONE = {"quality_share": 1, "quality_load": 1}
USERS = observed.users(24)
FITTING = 12
"""So many users wait for their comparison at most, which the monitor has room for."""


def ask_and_compare(bundle, folder, **options):
    """Served ids of all users, and the metrics after they were compared."""
    with (
        own_server(bundle, folder, **EVERYONE, **options) as server,
        RetrievalClient(server.grpc_url, timeout_s=20) as client,
    ):
        answers = []
        for ids in USERS:
            answers.append(client.retrieve(ids).item_ids[0])
            if len(answers) % FITTING == 0:
                metrics = observed.metrics_when(server, lambda now: now("nann_quality_users_total") == len(answers))
        return np.array(answers), metrics


def live_coverage(metrics):
    return metrics("nann_quality_items_found_total") / metrics("nann_quality_items_wanted_total")


@pytest.fixture(scope="module")
def healthy(live_bundle_path, tmp_path_factory):
    return ask_and_compare(live_bundle_path, tmp_path_factory.mktemp("healthy"))


def test_live_coverage_is_offline_coverage(healthy, bundle):
    answers, metrics = healthy
    offline = OfflineEnsemble(bundle)
    states = np.concatenate([offline.user_states(ids) for ids in USERS])
    exact = exact_search(offline, UserBatch(states, None), bundle.item_count, 20)
    assert metrics("nann_quality_users_total", result="compared") == len(USERS)
    assert metrics("nann_quality_items_wanted_total") == 20 * len(USERS)
    expected = coverage(answers, bundle.item_ids[exact.items])
    assert 0.7 < expected < 1
    assert live_coverage(metrics) == pytest.approx(expected, abs=1e-9)


def test_one_process_finds_the_same_beside_its_requests(healthy, live_bundle_path, tmp_path):
    answers, metrics = ask_and_compare(live_bundle_path, tmp_path, steps="one")
    np.testing.assert_array_equal(answers, healthy[0])
    assert metrics("nann_quality_users_total", result="compared") == len(USERS)
    assert live_coverage(metrics) == live_coverage(healthy[1])


def test_a_damaged_graph_shows(healthy, bundle, tmp_path):
    """Most edges of the ground layer lead to the next item: all files are valid, but answers are worse."""
    shutil.copytree(bundle.path, tmp_path / "bundle")
    file = next(name for name in bundle.manifest["files"] if name.startswith("layer0.neighbors"))
    neighbors = np.load(tmp_path / "bundle" / file)
    owners = np.repeat(np.arange(bundle.item_count, dtype=np.int32), np.diff(bundle.graph.layers[0].indptr))
    damaged = np.random.default_rng(0).random(len(neighbors)) < 0.8
    (tmp_path / "bundle" / file).unlink()
    np.save(tmp_path / "bundle" / file, np.where(damaged, (owners + 1) % bundle.item_count, neighbors))
    body = {key: value for key, value in bundle.manifest.items() if key not in ("files", "bundle_id")}
    write_manifest(tmp_path / "bundle", body, bundle.manifest["files"])
    _, metrics = ask_and_compare(tmp_path / "bundle", tmp_path / "server")
    assert live_coverage(metrics) < live_coverage(healthy[1]) - 0.2


def test_what_it_cannot_keep_up_with_is_dropped_and_counted(live_bundle_path, tmp_path):
    """With a thousandth of the scorer's time, the queue fills and answers stay the same."""
    with (
        own_server(live_bundle_path, tmp_path, quality_share=1, quality_load=0.001) as server,
        RetrievalClient(server.grpc_url, timeout_s=20) as client,
    ):
        for _ in range(4):
            client.retrieve(observed.users(16))
        # Each user is compared, dropped, waiting in the queue of 16, or under way.
        metrics = observed.metrics_when(server, lambda now: now("nann_quality_users_total") >= 64 - 17)
        assert metrics("nann_quality_users_total", result="dropped") > 40


def test_it_is_off_unless_wanted(server):
    with pytest.raises(AssertionError, match="no nann_quality_users_total"):
        observed.Metrics.of(server)("nann_quality_users_total")


def test_a_share_that_is_none_is_refused(live_bundle_path, tmp_path):
    from nann.errors import ServerError

    with (
        pytest.raises(ServerError, match="quality_share is '2'; expected a number from 0 to 1"),
        own_server(live_bundle_path, tmp_path, quality_share=2),
    ):
        pass
