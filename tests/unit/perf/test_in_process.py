"""Benchmarks without a server, on a tiny corpus: both sides do the same work, and the reports show all numbers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from support.benchmark_checks import check_benchmark
from support.written import drawn, lines, tables

from nann.errors import DataError
from nann.exact_search import exact_search
from nann.perf.benchmarks import growth, index_load, lockstep, prepare, refresh, retrieval
from nann.perf.corpora.offline import OfflineUsers
from nann.training.reports.text import MISSING
from nann.training.search.planted import LARGEST_ENTRY_LAYER, PlantedCorpus, PlantedScorer, planted_vectors


def test_planted_corpora_are_kept_and_begin_alike(corpus: PlantedCorpus, planted_cache: Path) -> None:
    again = PlantedCorpus.cached(planted_cache, len(corpus.vectors))
    np.testing.assert_array_equal(again.graph.layers[0].neighbors, corpus.graph.layers[0].neighbors)
    np.testing.assert_array_equal(planted_vectors(100, 200), corpus.vectors[100:200])
    assert len(corpus.graph.entry_points) <= LARGEST_ENTRY_LAYER
    corpus.graph.validate()


def test_a_planted_score_is_the_inner_product_and_a_little_more(corpus: PlantedCorpus) -> None:
    states = planted_vectors(0, 2, seed=1)
    items = np.array([[5, 7, -1], [9, 5, 0]], np.int32)
    scores = PlantedScorer(corpus.vectors).score(states, items)
    assert scores.dtype == np.float32
    products = (states[:, None, :] * corpus.vectors[items]).sum(axis=2)
    difference = np.abs(scores - products)[items != -1]
    assert (difference > 0).all()
    assert (difference < 3).all()


def test_growth_measures_every_corpus(corpus: PlantedCorpus, planted_cache: Path) -> None:
    small = PlantedCorpus.cached(planted_cache, 1000)
    points = growth.measure([small, corpus], timed=3, judged=2, repeats=1, say=lambda line: None)
    assert [point["items"] for point in points] == [1000, 3000]
    assert all(0.8 < point["coverage"] <= 1 and point["evaluations"] <= point["items"] for point in points)
    result = json.loads(json.dumps({"timed_users": 3, "judged_users": 2, "points": points}))
    (table,) = tables(growth.BENCHMARK.markdown(result))
    assert [row[:3] for row in table] == [
        ["items", "ms per query", "evaluations"],
        *([f"{point['items']:,}", f"{point['ms']:.2f}", f"{point['evaluations']:,.0f}"] for point in points),
    ]


def test_growth_divides_the_largest_corpus_by_the_small_one(tmp_path: Path) -> None:
    points = [{"items": items, "ms": ms, "evaluations": 1.0} for items, ms in ((100_000, 2.0), (10_000_000, 3.0))]
    assert growth.BENCHMARK.headline({"points": points}) == {"cost_10m_over_100k": 1.5}
    figure = drawn(growth.BENCHMARK.plots["perf_growth.png"], {"points": points}, tmp_path / "growth.png")
    assert lines(figure, 0) == [[(100_000, 2), (10_000_000, 3)]]
    assert lines(figure, 1) == [[(100_000, 1), (10_000_000, 1)]]


def test_refresh_stands_beside_a_graph_that_is_built_anew(planted_cache: Path, tmp_path: Path) -> None:
    def measured():
        return json.loads(json.dumps(refresh.measure(tmp_path, planted_cache, 3000, users=8, say=lambda line: None)))

    result = measured()
    assert (result["items"], result["new"]) == (3000, 30)
    assert all(0.95 < result[name][key] <= 1 for name in refresh.WORDS for key in ("coverage", "of_new"))
    check_benchmark(refresh.BENCHMARK, result, tmp_path)
    lost = 100 * (
        result["anew"]["coverage"] - min(result[name]["coverage"] for name in ("joined", "placed", "replaced"))
    )
    ratio = result["joined"]["core_seconds"] / result["anew"]["core_seconds"]
    assert refresh.BENCHMARK.headline(result) == {"refresh_over_anew": ratio, "refresh_points_lost": lost}
    again = measured()
    assert again["anew"] == result["anew"], "built once"
    assert again["joined"]["seconds"] != result["joined"]["seconds"]


def test_retrieval_stands_beside_the_cascade_and_all_items(users: OfflineUsers) -> None:
    result = retrieval.compare(users, timed=2, repeats=1, say=lambda line: None)
    methods = result["methods"]
    assert methods["exhaustive"]["coverage"] == 1
    assert methods["exhaustive"]["evaluations"] == users.bundle.item_count
    assert methods["cascade_coverage"]["coverage"] >= 0.99 * methods[result["entry"]]["coverage"]
    assert all(method["ms"] > 0 for method in methods.values())
    text = retrieval.BENCHMARK.markdown(json.loads(json.dumps({"tiny": result})))
    (table,) = tables(text)
    shown = {row[0]: row[1:4] for row in table[1:]}
    ours = methods[result["entry"]]["ms"]
    assert shown == {
        retrieval.LABELS[name]: [
            f"{one['ms']:.2f}",
            MISSING if name == result["entry"] else f"{one['ms'] / ours:.1f}",
            f"{one['evaluations']:,.0f}",
        ]
        for name, one in methods.items()
    }
    assert "of the time of the search with entry seeds" in text


def test_a_cascade_that_does_not_come_level_is_shown_at_its_largest(
    users: OfflineUsers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retrieval, "_MOST", 0)  # no more than top_k candidates
    result = retrieval.compare(users, timed=1, repeats=1, say=lambda line: None)
    largest = result["methods"]["cascade_most"]
    assert largest["evaluations"] == 20
    assert largest["coverage"] < 0.99 * result["methods"][result["entry"]]["coverage"]
    assert "does not reach our coverage" in retrieval.BENCHMARK.markdown({"tiny": result})


def test_a_cascade_of_all_items_is_exact(users: OfflineUsers) -> None:
    exact = exact_search(users.scorer, users.batch, users.bundle.item_count, 20).items
    found = retrieval.cascade(users, users.bundle.item_count, 20)
    assert np.mean([len(np.intersect1d(*rows)) / 20 for rows in zip(exact, found, strict=True)]) > 0.95


def test_lockstep_times_each_batch(users: OfflineUsers, tmp_path: Path) -> None:
    result = {"tiny": lockstep.measure(users, repeats=1)}
    stages = result["tiny"]["stages_ms_per_user"]["4"]
    assert tuple(stages) == lockstep.PARTS
    assert all(ms > 0 for ms in stages.values())
    (table,) = tables(lockstep.BENCHMARK.markdown(json.loads(json.dumps(result))))
    ms = result["tiny"]["ms_per_user"]
    assert [row[:2] for row in table[1:]] == [[str(batch), f"{ms[str(batch)]:.2f}"] for batch in lockstep.BATCHES]
    figure = drawn(lockstep.BENCHMARK.plots["perf_lockstep_stages.png"], result, tmp_path / "lockstep.png")
    heights = [[bar.get_height() for bar in bars] for bars in figure.axes[0].containers]
    per_batch = result["tiny"]["stages_ms_per_user"].values()
    assert heights == [pytest.approx([stages[part] for stages in per_batch]) for part in lockstep.PARTS]


def test_users_get_the_same_alone_and_in_a_batch(users: OfflineUsers) -> None:
    params = users.bundle.search_params
    together = users.search(params, slice(0, 4))
    alone = [users.search(params, slice(row, row + 1)).items for row in range(4)]
    np.testing.assert_array_equal(together.items, np.concatenate(alone))


def test_index_load_reports_both_ways(users: OfflineUsers) -> None:
    loading = index_load.time_loading(users.bundle.path, repeats=1)
    assert loading["ms"].keys() == {"mapped", "copied", "verified"}
    (table,) = tables(index_load.BENCHMARK.markdown({**loading, "ms": {"mapped": 2.0, "copied": 6.0, "verified": 9.0}}))
    assert [row[1:] for row in table] == [["ms", "ratio"], ["2", "1.0"], ["6", "3.0"], ["9", "4.5"]]


def test_prepare_measures_the_command(tmp_path: Path) -> None:
    """The same log three times: each is prepared whole, and the report says how fast."""
    result = prepare.measure(tmp_path, items=2_000, say=lambda line: None)
    assert result["rows"] == pl.scan_parquet(tmp_path / "log.parquet").select(pl.len()).collect().item() > 20_000
    rows = [pl.scan_csv(tmp_path / name).select(pl.len()).collect().item() for name in ("log.csv", "text_csv.csv")]
    assert rows == [result["rows"]] * 2
    for one in result["runs"].values():
        assert one["rows_per_s"] == pytest.approx(result["rows"] / one["s"])
        assert 50 < one["peak_mb"] < 4_000
    (table,) = tables(prepare.BENCHMARK.markdown(result))
    assert [row[0] for row in table[1:]] == list(prepare.WORDS.values())
    (tmp_path / "log.csv").write_text("user,item,time,category\n")
    with pytest.raises(DataError, match=r"(?s)`nann prepare log .*log.csv` failed: .*the log is empty"):
        prepare.measure(tmp_path, items=2_000, say=lambda line: None)
