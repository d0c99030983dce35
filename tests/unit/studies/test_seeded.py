from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from support.searching import make_graph
from support.written import drawn, lines, tables

from nann.errors import ConfigError
from nann.light_walk import light_users
from nann.metrics import coverage
from nann.search_input import SearchIndex
from nann.search_params import SearchParams, SeedParams
from nann.training.search.measured_users import search_users
from nann.training.studies import seeds as seeded
from nann.training.studies.curves import frontier, value_at
from nann.training.studies.measures import seeded_entry

pytestmark = pytest.mark.heavy


@pytest.fixture(scope="module")
def result(study_runs, study_setup):
    return json.loads(json.dumps(seeded.run(study_runs, study_setup), allow_nan=False))


def test_each_curve_is_what_its_search_gives(result, study_runs, study_setup):
    judge = study_runs.get(study_setup.config())
    exact = judge.users.cut(10).exact
    for entry in ("layers", "seeds"):
        points = result["data"]["curves"][entry]
        assert points == sorted(points, key=lambda point: point["evaluations"])
        for point in (points[0], points[-1]):
            search = point["search"]
            params = SearchParams(10, tuple(search["ef"]), tuple(search["rounds"]))
            if entry == "seeds":
                params = replace(params, seeds=SeedParams(**search["seeds"]))
            found = search_users(judge.bundle.index, judge.scorer, judge.users.batch, params)
            assert point["evaluations"] == pytest.approx(found.items_scored.mean())
            assert point["coverage"] == pytest.approx(coverage(found.items, exact))
    last = result["data"]["curves"]["cascade"][-1]
    assert last["evaluations"] == 60
    candidates = seeded_entry.light_top(judge.bundle.light_vectors, judge.states, 60)
    best = [np.isin(row, some).mean() for row, some in zip(exact, candidates, strict=True)]
    assert last["coverage"] == pytest.approx(np.mean(best))  # re-ranked by the judge: none of them is lost


def test_light_top_is_the_sorted_light_score():
    rng = np.random.default_rng(0)
    vectors, states = rng.normal(size=(50, 4)).astype(np.float32), rng.normal(size=(20, 6)).astype(np.float32)
    expected = np.argsort(-(light_users(states, 4) @ vectors.T), axis=1)[:, :7]
    np.testing.assert_array_equal(seeded_entry.light_top(vectors, states, 7), expected)
    assert seeded_entry.light_top(vectors, states, 99).shape == (20, 50)


def test_evaluations_are_read_off_the_frontier():
    points = [{"evaluations": e, "coverage": c} for e, c in ((100, 0.8), (200, 0.9), (250, 0.85), (400, 1.0))]
    best = frontier(points, "coverage", "evaluations")
    assert value_at(best, "coverage", 0.9, "evaluations") == 200
    assert value_at(best, "coverage", 0.95, "evaluations") == pytest.approx(300)
    assert value_at(best, "coverage", 0.7, "evaluations") is None
    assert value_at(best[:2], "coverage", 0.95, "evaluations") is None


def test_keys_of_experiments_json(result):
    headline = seeded.headline(result, "data")
    assert set(headline) == {"seeded"}
    assert set(headline["seeded"]) == {"cov80", "cov95"}
    for at in headline["seeded"].values():
        assert set(at) == {"layers", "seeds", "cascade", "evaluations_ratio"}
        both = at["layers"] and at["seeds"]
        assert at["evaluations_ratio"] == (pytest.approx(at["seeds"] / at["layers"]) if both else None)
    large = {**result, "synthetic": [{**result["data"], "items": 1_000_000}]}
    assert seeded.headline(large, "data")["seeded_1m"] == result["data"]["at"]


def test_the_report_names_what_is_ours(result, tmp_path):
    text = seeded.markdown(result)
    assert text.startswith("Entry by seeds is ours, not the paper's.")
    assert "On a synthetic corpus of 300 items" in text
    at, measured, *_ = tables(text)
    assert at[0][:2] == ["coverage@10", "the paper's walk"]
    assert [row[0] for row in at[1:]] == ["80%", "95%"]
    curves = result["data"]["curves"]
    points = [point for name in seeded_entry.LABELS for point in curves[name]]
    assert [row[2] for row in measured[1:]] == [f"{point['evaluations']:,.0f}" for point in points]
    figure = drawn(seeded.STUDY.plots["seeded.png"], result, tmp_path / "seeded.png")
    assert lines(figure) == [
        [(point["evaluations"], 100 * point["coverage"]) for point in points] for points in curves.values()
    ]


def test_a_model_without_a_light_head_is_refused():
    plain = SearchIndex(make_graph([[[]]], [0]), None)
    with pytest.raises(ConfigError, match="has no light head; set light"):
        seeded_entry.compare(plain, None, None, None, coverages=[0.9], budgets=[10], max_share=1)
