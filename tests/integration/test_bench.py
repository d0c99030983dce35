"""`nann bench` on a small corpus, against a real Triton with the real perf_analyzer."""

from __future__ import annotations

import json

import pytest

from nann.bundle import SCORER_FILE, Bundle
from nann.cli.bench import bench
from nann.errors import ConfigError

pytestmark = [pytest.mark.triton, pytest.mark.slow]
ITEMS, USERS = 1000, 5


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    from nann.perf.corpora.table1 import table1_corpus
    from nann.perf.load.perf_analyzer_install import find_perf_analyzer

    try:
        find_perf_analyzer()
    except ConfigError as error:
        pytest.skip(str(error))
    folder = tmp_path_factory.mktemp("bench")
    return folder, table1_corpus(folder / "corpora", print, ITEMS, 5)


def test_table_1_has_the_papers_search_and_may_be_entered_by_seeds(corpus):
    _, made = corpus
    bundle = Bundle.open(made.bundle)
    assert bundle.item_count == ITEMS
    params = bundle.search_params
    layers = bundle.graph.entry_layer + 1
    assert (params.top_k, params.ef, params.rounds) == (200, (200, 500, 1000)[-layers:], (1, 1, 2)[-layers:])
    assert bundle.search_by_entry["seeds"].seeds is not None


def test_served_answers_have_the_offline_searchs_quality_and_the_parts_add_up(corpus, monkeypatch):
    from nann.perf.corpora import table1 as corpora
    from nann.training.data.prepared import PreparedData
    from nann.training.scorers import OnnxScorer
    from nann.training.search.measured_users import MeasuredUsers, bundle_users

    folder, made = corpus
    out = folder / "out"
    monkeypatch.setattr(corpora, "table1_corpus", lambda *_: made)
    options = {"users": USERS, "window_s": 1.0, "repeats": 2, "cache": folder, "out": out, "json": False}
    bench(only="served", real=made.bundle, data=made.data, table1_items=ITEMS, check=False, **options)
    body = json.loads((out / "perf.json").read_text())
    served = body["benchmarks"]["served"]["result"]["table1"]
    bundle = Bundle.open(made.bundle)
    queries, batch = bundle_users(bundle, PreparedData.load(made.data), "test", USERS)
    scorer, params = OnnxScorer(bundle.path / SCORER_FILE), bundle.search_params
    users = MeasuredUsers.of(scorer, batch, queries, bundle.item_count, params.top_k)
    offline = users.measure(bundle.index, scorer, params)
    assert served["users"] == USERS
    assert served["coverage"] == pytest.approx(offline["coverage"], abs=0.01)
    assert served["recall"] == pytest.approx(offline["recall_retrieval"], abs=0.01)
    assert served["replayed_items_scored"] == pytest.approx(offline["items_scored"], rel=0.01)
    assert body["served_over_scorer_p50"] > 1
    assert served["stages_ms"]["scorer"] > 0
    assert 0 < served["hops_p50_ms"] < served["served_p50_ms"]
    assert "## Served latency" in (out / "perf.md").read_text()
