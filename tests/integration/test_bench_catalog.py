"""The benchmark of a corpus that changes, small, against a live server."""

from __future__ import annotations

import numpy as np
import pytest
from support.benchmark_checks import check_benchmark

from nann.perf.benchmarks.catalog import BENCHMARK, Sizes, histories, measure
from nann.training.scorers import onnx_session
from nann.training.search.planted_bundle import planted_bundle

pytestmark = pytest.mark.triton
ITEMS = 6000


def test_new_items_are_found_deleted_ones_are_not_and_the_report_shows_it(tmp_path):
    result = measure(tmp_path, Sizes((ITEMS,), new=40, searches=200), users=4, repeats=1, say=print)
    (corpus,) = result["corpora"]
    assert (corpus["items"], corpus["added"]) == (ITEMS, 60)
    assert 0 < corpus["watched"] <= 40
    assert corpus["upsert_p50_ms"] < corpus["retrievable_p99_ms"] < 10_000, "an item that is not found is infinite"
    assert corpus["requests"] == 4
    deletes = result["deletes"]
    assert deletes["searches"] >= 200
    assert deletes["deleted"] > 0
    assert deletes["returned"] == 0
    assert BENCHMARK.headline(result)["deleted_items_returned"] == 0
    check_benchmark(BENCHMARK, result, tmp_path)


def test_a_new_item_is_the_best_of_its_user(tmp_path):
    bundle = planted_bundle(tmp_path / "bundle", tmp_path, ITEMS)
    asked, wishes = histories(bundle, 5, seed=3)
    behaviors = np.full((5, 8), -1, np.int32)
    behaviors[:, -3:] = np.array(asked) - 1
    (states,) = onnx_session(bundle.path / "user_encoder.onnx", 1).run(None, {"behaviors": behaviors})
    rows = np.concatenate([np.asarray(bundle.item_vectors), wishes]).astype(np.float32)
    feeds = {"user_state": states, "candidate_rows": np.tile(rows, (5, 1, 1))}
    (scores,) = onnx_session(bundle.path / "scorer.onnx", 1).run(None, feeds)
    np.testing.assert_allclose(scores, states @ rows.T, rtol=1e-4, atol=1e-5)
    assert scores.argmax(axis=1).tolist() == list(range(ITEMS, ITEMS + 5))
