"""A live server whose scorer stops and returns, with on_scorer_failure "fallback"."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator

import numpy as np
import pytest
from support.bundles import without_light
from support.live_bundle import FAILING_INDEX, NAN_INDEX, attributes, item_ids
from support.own_server import control, own_server
from support.reference import OfflineEnsemble

from nann.cheap_ranking import rank_by_neighbourhood
from nann.clients import RetrievalClient
from nann.errors import ServerError
from nann.search_input import UserBatch
from nann.signature import PADDING_SCORE, STATUS_COMPLETE, STATUS_DEGRADED

pytestmark = pytest.mark.triton

IDS = item_ids()[[20, 21, 22, 20]].tolist()
calls_the_scorer = pytest.mark.parametrize("degrading_server", ["separate", "two"], indirect=True)
in_every_form = pytest.mark.parametrize("degrading_server", ["separate", "two", "one"], indirect=True)


@pytest.fixture(scope="module")
def degrading_server(request, live_bundle_path, tmp_path_factory) -> Iterator:
    folder = tmp_path_factory.mktemp("degrading")
    with own_server(live_bundle_path, folder, steps=request.param, on_scorer_failure="fallback") as server:
        yield server


@pytest.fixture(scope="module")
def degrading_client(degrading_server) -> Iterator[RetrievalClient]:
    with RetrievalClient(degrading_server.grpc_url, timeout_s=60) as client:
        yield client


@contextlib.contextmanager
def without_scorer(server) -> Iterator[None]:
    control(server, "scorer", "unload")
    try:
        yield
    finally:
        control(server, "scorer", "load")


@calls_the_scorer
def test_without_a_scorer_the_light_score_ranks_and_with_it_all_is_as_before(
    degrading_server, degrading_client, bundle
):
    before = degrading_client.retrieve(IDS)
    assert before.status.tolist() == [STATUS_COMPLETE]
    with without_scorer(degrading_server):
        degraded = degrading_client.retrieve(IDS, top_k=10)
        several = degrading_client.retrieve([IDS, []], top_k=10)
        hidden = degraded.item_ids[0, 3:6].tolist()
        filtered = degrading_client.retrieve(
            IDS, top_k=10, exclude_history=True, exclude_item_ids=hidden, filter='brand = "National"'
        )
    assert degraded.status.tolist() == [STATUS_DEGRADED]
    assert degraded.items_scored.tolist() == [0]
    exhaustive = (OfflineEnsemble(bundle).user_states(IDS) @ bundle.light_vectors.T)[0]  # [N]
    found = np.searchsorted(bundle.item_ids, degraded.item_ids[0])
    np.testing.assert_allclose(degraded.scores[0], exhaustive[found], rtol=1e-4)
    assert (np.diff(degraded.scores[0]) <= 0).all()
    assert len(np.intersect1d(found, np.argsort(-exhaustive)[:10])) >= 8  # a walk, not a scan
    assert several.status.tolist() == [STATUS_DEGRADED] * 2
    np.testing.assert_array_equal(several.item_ids[0], degraded.item_ids[0])
    assert filtered.status.tolist() == [STATUS_DEGRADED]
    shown = set(item_ids()[np.array(attributes()["brand"]) == "National"].tolist()) - {*IDS, *hidden}
    assert filtered.items_matching.tolist() == [len(shown)]
    assert len({*filtered.item_ids[0].tolist()} & shown) == 10
    after = degrading_client.retrieve(IDS)
    np.testing.assert_array_equal(after.item_ids, before.item_ids)
    assert after.status.tolist() == [STATUS_COMPLETE]


@in_every_form
def test_a_scorer_that_fails_for_one_user_degrades_that_user(degrading_client):
    result = degrading_client.retrieve([item_ids()[FAILING_INDEX]])
    assert result.status.tolist() == [STATUS_DEGRADED]
    assert degrading_client.retrieve(IDS).status.tolist() == [STATUS_COMPLETE]


@in_every_form
def test_without_a_usable_light_score_the_scorers_error_is_the_answer(degrading_client):
    """The user encoder returns NaN for this user, and the light score would read it too."""
    with pytest.raises(ServerError, match="holds NaN"):
        degrading_client.retrieve([item_ids()[NAN_INDEX]])


def test_a_bundle_without_a_light_score_ranks_by_the_graph(live_bundle_path, tmp_path):
    plain = without_light(shutil.copytree(live_bundle_path, tmp_path / "bundle"))
    with (
        own_server(plain.path, tmp_path, on_scorer_failure="fallback") as server,
        RetrievalClient(server.grpc_url, timeout_s=60) as client,
        without_scorer(server),
    ):
        result = client.retrieve([IDS, []], top_k=10)
    assert result.status.tolist() == [STATUS_DEGRADED] * 2
    behaviors, _ = plain.features.behaviors(np.array([IDS], np.int64))
    users = UserBatch(np.zeros((1, 1), np.float32), behaviors)
    items, scores = rank_by_neighbourhood(plain.index, users, 10)
    np.testing.assert_array_equal(result.item_ids[0], plain.item_ids[items[0]])
    np.testing.assert_array_equal(result.scores[0], scores[0])
    assert result.item_ids[0, 0] == IDS[0]  # twice in the history
    assert (result.item_ids[1] == -1).all()  # nothing is near to nothing
    assert (result.scores[1] == PADDING_SCORE).all()
