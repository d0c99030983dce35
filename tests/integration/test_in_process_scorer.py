"""The scorer in the process of beam_retrieval, on a real server."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from support import live_bundle, native_bundle
from support.own_server import own_server
from support.reference import OfflineEnsemble
from support.waiting import wait_until

from nann.bundle import Bundle
from nann.clients import RetrievalClient
from nann.perf.servers.triton_counters import read_metrics
from nann.signature import BEAM_RETRIEVAL, SCORER

pytestmark = pytest.mark.triton


@pytest.mark.parametrize("item_rows", [False, True], ids=["table", "rows"])
@pytest.mark.parametrize("place", ["bls", "in_process"])
def test_the_native_form_answers_as_onnxruntime(tmp_path: Path, place: str, item_rows: bool) -> None:
    bundle = native_bundle.make_bundle(tmp_path / "bundle", item_rows=item_rows)
    offline = OfflineEnsemble(bundle)
    users = [live_bundle.item_ids()[start : start + 5].tolist() for start in range(10, 26)]
    with own_server(bundle.path, tmp_path, scorer=place) as server, closing(RetrievalClient(server.grpc_url)) as client:
        found = client.retrieve(users)
    for row, ids in enumerate(users):
        items, scores, _ = offline.retrieve(ids)
        np.testing.assert_array_equal(found.item_ids[row], items)
        np.testing.assert_allclose(found.scores[row], scores, rtol=1e-5, atol=1e-5)
    said = (tmp_path / "log").read_text().count("scorer: engine native; ")
    assert said == (2 if place == "in_process" else 1)


def test_the_answers_are_the_same_and_the_model_scorer_is_not_called(live_bundle_path: Path, tmp_path: Path) -> None:
    offline = OfflineEnsemble(Bundle.open(live_bundle_path))
    users = [live_bundle.item_ids()[start : start + 5].tolist() for start in range(10, 26)]
    answered = "nv_inference_request_success"
    with own_server(live_bundle_path, tmp_path, scorer="in_process") as server:
        with closing(RetrievalClient(server.grpc_url)) as client:
            found = client.retrieve(users)
        # Triton counts a request after it has sent the answer.
        wait_until(lambda: read_metrics(server.metrics_url)[answered, BEAM_RETRIEVAL.name] > 0)
        assert read_metrics(server.metrics_url)[answered, SCORER.name] == 0
    for row, ids in enumerate(users):
        items, scores, scored = offline.retrieve(ids)
        np.testing.assert_array_equal(found.item_ids[row], items)
        np.testing.assert_allclose(found.scores[row], scores, rtol=1e-5, atol=1e-5)
        assert found.items_scored[row] == scored
