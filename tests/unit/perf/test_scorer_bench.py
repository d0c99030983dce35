"""The benchmark compares forms and engines that give the same scores."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from support.written import drawn, lines, tables

from nann.perf.benchmarks.scorer import BENCHMARK, compare_engines, compare_forms
from nann.perf.benchmarks.scorer_engines import NATIVE, SERVED, engines, served_engine
from nann.python_backend.engines.onnx_model import EmbeddedScorer
from nann.training.export.compared_forms import ComparedForms, export_forms, paper_network
from nann.training.scorers import onnx_session

pytestmark = pytest.mark.heavy

ITEMS, USERS, CANDIDATES = 400, 4, 700


@pytest.fixture(scope="module")
def forms(tmp_path_factory: pytest.TempPathFactory) -> ComparedForms:
    return export_forms(paper_network(ITEMS), tmp_path_factory.mktemp("forms"), USERS)


@pytest.fixture(scope="module")
def candidates():
    return np.random.default_rng(0).integers(ITEMS, size=(USERS, CANDIDATES), dtype=np.int32)


def native_of(forms):
    return {"export": {"native": forms.native}}


def relative(scores, expected):
    return np.abs(scores - expected).max() / np.ptp(expected)


def test_the_served_and_the_shipped_form_score_as_the_naive_one(forms, candidates):
    feeds = {"behaviors": forms.behaviors, "candidates": candidates}
    (naive,) = onnx_session(forms.naive, 1).run(None, feeds)
    assert np.ptp(naive) > 0.01
    # 2,800 pairs: the served engine scores them in blocks.
    assert relative(served_engine(forms.served)(forms.user_states, candidates), naive) < 1e-4
    shipped = EmbeddedScorer.open(forms.shipped, rows=forms.rows)
    assert relative(shipped.score(forms.user_states, candidates), naive) < 1e-4


def test_nothing_but_the_attention_passes_over_the_candidates_unfused(forms):
    """If torch's exporter changes and adds a slow operator again, this fails; it would hardly be noticed otherwise."""
    operators = [node.op_type for node in onnx.load(forms.served).graph.node]
    assert operators.count("Gather") == 1
    assert operators.count("Gemm") == 3
    assert operators.count("MatMul") == 2
    assert operators.count("Add") == 2
    assert not {"PRelu", "Transpose", "GatherND", "BatchNormalization", "Expand"} & set(operators)


def test_engines_score_alike_and_say_what_is_missing(forms, candidates, tmp_path: Path):
    said: list[str] = []
    found = {engine.name: engine.score for engine in engines(forms.served, tmp_path, said.append, native_of(forms))}
    expected = found.pop(SERVED)(forms.user_states, candidates)
    assert len(found) + len(said) >= 3
    for name, score in found.items():
        limit = 0.3 if "int8" in name or "bf16" in name else 0.05 if name == NATIVE else 1e-4
        assert relative(score(forms.user_states, candidates), expected) < limit, name


def test_a_result_becomes_a_report(forms, tmp_path: Path, monkeypatch):
    monkeypatch.setattr("nann.perf.benchmarks.scorer._WALK_ROUNDS", 1)
    monkeypatch.setattr("nann.perf.benchmarks.scorer.BATCH", (4, 100))
    compared = compare_forms(forms, 1, print, users=(1, 4), counts=(20, 17_000))
    assert [(row["users"], row["candidates"]) for row in compared] == [(1, 20), (1, 17_000), (4, 20), (4, 17_000)]
    rows = compare_engines(forms, tmp_path, 1, print)
    lost = {"corpus": "table1", "top_k": 5, "agreement": 0.995, "coverage": {"served": 0.9, "native": 0.898}}
    result = {"items": ITEMS, "forms": compared, "engines": rows, "coverage": {SERVED: 1.0}, "native": [lost]}
    ratios, by_engine, kept, *_ = tables(BENCHMARK.markdown(result))
    assert [row[:4] for row in ratios[1:]] == [
        [str(row["users"]), f"{row['candidates']:,}", f"{row['served_ms']:.2f}", f"{row['naive_over_served']:.2f}"]
        for row in compared
    ]
    assert [row[0] for row in by_engine[1:]] == [row["engine"] for row in rows]
    assert SERVED in [row["engine"] for row in rows]
    assert kept[1] == ["table1", "99.50%", "90.00%", "89.80%"]
    headline = BENCHMARK.headline(result)
    assert headline["scorer_over_naive"] == compared[1]["naive_over_served"]
    assert headline["native_kept"] == {"table1": 99.5}
    assert headline["native_points_lost"] == {"table1": pytest.approx(0.2)}
    times = {row["engine"]: row["17000_ms_per_1000"] for row in rows}
    assert headline.get("cpu_bf16_over_fp32") == (times[NATIVE] / times[SERVED] if NATIVE in times else None)
    (plot,) = BENCHMARK.plots.values()
    one_user, four_users, even = lines(drawn(plot, result, tmp_path / "plot.png"))
    assert one_user == [(row["candidates"], row["naive_over_served"]) for row in compared[:2]]
    assert four_users == [(row["candidates"], row["naive_over_served"]) for row in compared[2:]]
    assert {y for _, y in even} == {1}
