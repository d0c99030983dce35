"""Each study's numbers against first principles."""

from __future__ import annotations

import re
import statistics
from dataclasses import replace

import numpy as np
import pytest
import torch
from support.study_checks import check_study

from nann.bundle import search_from_json
from nann.training.reports.text import percent, percent_spread, spread
from nann.training.search.measured_users import search_users
from nann.training.search.recommended import seeded_search
from nann.training.studies import baselines, figure5, figure6, figure7, figures3_4, growth, readings, table3, tuned
from nann.training.studies.curves import frontier, value_at
from nann.training.studies.paper import userbehavior_curve
from nann.training.studies.report import STUDIES
from nann.training.studies.runs import fit_params

pytestmark = pytest.mark.heavy


def test_table3_is_averaged_over_random_seeds(study_runs, study_setup):
    result = table3.run(study_runs, study_setup)
    expected = []
    for seed in study_setup.seeds:
        model = study_runs.get(study_setup.config("no_attention", auxiliary=False, seed=seed))
        params = fit_params(study_setup.search, model.bundle.graph)
        expected.append(model.users.cut(params.top_k).measure(model.bundle.index, model.scorer, params))
    cell = result["cells"]["no_attention"]["no_aux"]
    coverages = [one["coverage"] for one in expected]
    assert cell["mean"]["coverage"] == pytest.approx(statistics.fmean(coverages))
    assert cell["spread"]["coverage"] == pytest.approx(statistics.stdev(coverages))
    assert cell["mean"]["share_scored"] == pytest.approx(statistics.fmean(one["share_scored"] for one in expected))


def test_table3_has_the_keys_that_are_promised(study_runs, study_setup):
    body = table3.headline(table3.run(study_runs, study_setup), "complete_journey")
    for part in ("table3", "table3_spread"):
        cells = body[part]["complete_journey"]
        assert set(cells) == {"two_sided", "dnn", "dnn_attention"}
        for row in cells.values():
            assert set(row) == {"no_aux", "aux"}
            for cell in row.values():
                assert set(cell) == {"recall_all", "recall_retrieval", "recall_delta", "coverage", "share_scored"}
    shares = [cell["share_scored"] for row in body["table3"]["complete_journey"].values() for cell in row.values()]
    assert all(0 < share <= 1 for share in shares)
    assert body["table3_seeds"] == [1, 2]


def test_one_seed_has_no_spread():
    assert spread([0.5]) is None
    assert percent_spread(0.5, None) == "50.00%"
    assert percent_spread(0.5, 0.012) == "50.00% ± 1.20"
    assert percent(None) == "–"  # noqa: RUF001


def test_the_curves_are_the_measured_points(study_runs, study_setup):
    three, four = (figures3_4.run(number, study_runs, study_setup) for number in "34")
    assert set(three["curves"]) == {"NANN", "NANN-HNSW", "SL2G", "NANN entered by seeds (ours)"}
    assert all("seeds" in point for point in three["curves"]["NANN entered by seeds (ours)"])
    assert set(four["curves"]) == {"NANN", "NANN without aux"}
    assert three["curves"]["NANN"] == four["curves"]["NANN"]
    assert len(three["curves"]["NANN"]) == 4
    plain = study_runs.get(study_setup.config(auxiliary=False))
    assert {"ef": [40], **plain.best_first(10, 40)} in three["curves"]["SL2G"]
    assert three["exhaustive"]["without aux"] == plain.users.recall(plain.users.cut(10).exact)
    shares = [point["share_scored"] for point in three["curves"]["NANN"]]
    assert shares == sorted(shares)


def test_the_frontier_drops_points_that_cost_more_and_are_no_better():
    points = [{"share_scored": s, "coverage": c} for s, c in [(3, 0.6), (1, 0.5), (2, 0.4), (4, 0.6), (3, 0.7)]]
    best = frontier(points, "coverage")
    assert [(point["share_scored"], point["coverage"]) for point in best] == [(1, 0.5), (3, 0.7)]
    assert value_at(best, "share_scored", 2, "coverage") == pytest.approx(0.6)
    assert value_at(best, "share_scored", 4, "coverage") is None


def test_the_papers_curves_can_be_read():
    curve = userbehavior_curve("3", "NANN", "coverage")
    assert curve == sorted(curve)
    shares, values = zip(*curve, strict=True)
    assert np.interp(0.0035, shares, values) == pytest.approx(0.9159, abs=0.002)
    assert np.interp(0.0076, shares, values) == pytest.approx(0.9755, abs=0.003)


def test_every_round_is_the_search_that_ends_there(study_runs, study_setup):
    result = figure5.run(study_runs, study_setup)
    model = study_runs.get(study_setup.config())
    assert [point["round"] for point in result["rounds"]] == [1, 2, 3, 4]
    for point in result["rounds"]:
        params = replace(study_setup.search, rounds=(*study_setup.search.rounds[:-1], point["round"]))
        found = model.beam(params)
        assert point["recall"] == found["recall_retrieval"]
        assert point["coverage"] == found["coverage"]
        assert point["share_scored"] == found["share_scored"]
    assert result["recall_all"] == found["recall_all"]


def test_the_last_round_is_the_final_result(study_runs, study_setup):
    model = study_runs.get(study_setup.config())
    params = fit_params(replace(study_setup.search, rounds=(1, 40)), model.bundle.graph)
    top = figure5.by_round(model, params).items
    np.testing.assert_array_equal(
        top[-1], search_users(model.bundle.index, model.scorer, model.users.batch, params).items
    )
    np.testing.assert_array_equal(top[-1], top[-2])  # no user needs 40 rounds, so the last W is repeated


def test_score_changes_are_those_of_the_plain_network(study_runs, study_setup):
    model = study_runs.get(study_setup.config())
    changes, scores = figure6.score_changes(model, 10, 0.05)
    network, exact = model.model, model.users.cut(10).exact
    rng = np.random.default_rng(0)
    for start in (0, 16):
        users = slice(start, min(start + 16, 30))
        items = torch.from_numpy(np.ascontiguousarray(exact[users]))
        behaviors = torch.from_numpy(model.queries.behaviors[users])
        profiles = torch.from_numpy(model.queries.profiles[users])
        with torch.inference_mode():
            vectors = network.item_vectors(items)
            delta = torch.from_numpy(0.05 * rng.uniform(-1, 1, vectors.shape)).float()
            assert delta.abs().max() <= 0.05
            clean = network(behaviors, profiles, items)
            context = network.user_context(behaviors, profiles)
            moved = network.score(context, network.item_features(vectors + delta))
        np.testing.assert_allclose(scores[users], clean.numpy(), atol=1e-5)
        np.testing.assert_allclose(changes[users], (clean - moved).abs().numpy(), atol=1e-5)
    values = figure6.summary(changes, scores)
    assert values["median_relative"] == pytest.approx(np.median(changes) / scores.std(axis=1).mean())


def test_the_histograms_hold_every_pair(study_runs, study_setup):
    result = figure6.run(study_runs, study_setup)
    assert set(result["models"]) == {"attention + aux", "attention", "no attention"}
    for model in result["models"].values():
        assert sum(model["shares"]) == pytest.approx(1)
        assert len(result["bin_edges"]) == len(model["shares"]) + 1


def test_sensitivity_retrains_per_eps_and_cuts_one_search_per_k(study_runs, study_setup):
    result = figure7.run(study_runs, study_setup)
    assert [point["epsilon"] for point in result["epsilon"]] == [0, 0.01, 0.1]
    plain = study_runs.get(study_setup.config(auxiliary=False)).beam(study_setup.search)
    assert result["epsilon"][0] == {"epsilon": 0, **plain}
    model = study_runs.get(study_setup.config())
    params = fit_params(replace(study_setup.search, ef=(10, 20), top_k=20), model.bundle.graph)
    widest = search_users(model.bundle.index, model.scorer, model.users.batch, params).items
    for point in result["top_k"]:
        k = point["top_k"]
        shared = [len(set(a[:k]) & set(b)) / k for a, b in zip(widest, model.users.cut(k).exact, strict=True)]
        assert point["coverage"] == pytest.approx(np.mean(shared))
    assert len({point["share_scored"] for point in result["top_k"]}) == 1


def test_both_readings_are_compared_with_none(study_runs, study_setup):
    result = readings.run(study_runs, study_setup)
    model = study_runs.get(study_setup.config(reading="eq5", seed=2))
    assert model.config.loss.auxiliary.reading == "eq5"
    assert result["readings"]["eq5"]["seeds"][1] == model.beam(study_setup.search)
    assert result["default"] == "row_kl"
    assert "The defaults take `row_kl`" in readings.markdown(result)


@pytest.mark.parametrize("study", STUDIES[:7], ids=lambda study: study.name)
def test_tables_and_plots_show_the_numbers_of_a_new_result(study_runs, study_setup, tmp_path, study):
    check_study(study, study.run(study_runs, study_setup), tmp_path)
    for name in study.plots:
        assert int.from_bytes((tmp_path / name).read_bytes()[16:20], "big") == 1200


def test_the_baselines_are_judged_by_the_walks_own_scorer(study_runs, study_setup):
    result = baselines.run(study_runs, study_setup)
    judge = study_runs.get(study_setup.config())
    walk = judge.beam(study_setup.search)
    assert result["baselines"]["nann"]["recall"] == walk["recall_retrieval"]
    assert result["baselines"]["nann"]["coverage"] == walk["coverage"]
    assert result["recall_all"] == walk["recall_all"]
    budgets = [point["evaluations"] for point in result["curves"]["cascade"]]
    assert budgets == sorted([20, 60, round(walk["items_scored"])])  # 5 is below K
    assert {"personal_4", "personal_8"} <= set(result["baselines"])
    seeded = judge.beam(seeded_search(10, 300))
    assert result["baselines"]["nann_seeded"]["coverage"] == seeded["coverage"]
    assert result["baselines"]["nann_seeded"]["evaluations"] == seeded["items_scored"]
    assert set(baselines.STUDY.headline(result, "log")["baselines"]) >= {"popular", "cascade", "item_to_item"}
    assert "scorer evaluations per user the paper's walk covers" in baselines.markdown(result)


def test_growth_trains_each_size_once(study_runs, study_setup, monkeypatch):
    result = growth.run(study_runs, study_setup)
    assert [entry["items"] for entry in result["sizes"]] == [300, 600]
    assert growth.STUDY.headline(result, "log") == {}
    million = {**result, "synthetic_1m": {"coverage": 0.98}}
    assert growth.STUDY.headline(million, "log") == {"synthetic_1m": {"coverage": 0.98}}
    monkeypatch.setattr("nann.training.studies.runs.train", None)
    assert growth.run(study_runs, study_setup) == result
    assert re.search(r"At 300 items it scores .* and covers .*%. At 600 items it scores", growth.markdown(result))
    alone = growth.markdown({**result, "sizes": result["sizes"][1:]})
    assert alone.startswith("Synthetic logs; the search is tuned for a coverage of 99.00%. At 600 items it scores")
    assert alone.count(" items it scores") == 1


def test_the_tuned_search_is_chosen_on_validation_users_and_measured_on_test_users(study_runs, study_setup):
    result = tuned.run(study_runs, study_setup)
    model = study_runs.get(study_setup.config())
    validation = study_runs.data.queries("validation", model.config.model.sequence_length, study_setup.tuned_users)
    top_k = study_setup.search.top_k
    users = model.measured(validation, top_k)
    assert [point["wanted"] for point in result["points"]] == list(study_setup.tuned_coverages)
    for point in result["points"]:
        params = search_from_json({"top_k": top_k, **point["validation"]})
        again = users.measure(model.bundle.index, model.scorer, params)
        assert point["validation"]["coverage"] == pytest.approx(again["coverage"])
        assert point["validation"]["coverage"] >= point["wanted"]
        assert point["test"] == model.beam(params)
    last = result["points"][-1]["test"]
    assert tuned.headline(result, "log") == {
        "tuned": {name: last[name] for name in ("coverage", "recall_delta", "share_scored")}
    }


def test_no_tuned_figures_if_nothing_reaches_the_coverage():
    assert tuned.headline({"points": []}, "log") == {}
