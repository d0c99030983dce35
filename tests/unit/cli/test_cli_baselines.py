from __future__ import annotations

import sys

import pytest
from support.cli_commands import nann, refused

pytestmark = pytest.mark.heavy

METHODS = {"popular", "own_items", "item_knn", "als", "deep", "light"}


@pytest.fixture(scope="module")
def by_bundle(pipeline):
    ended = nann("baselines", "--data", pipeline.data, "--bundle", pipeline.bundle, "--top-k", "5,20", "--json")
    assert ended.code == 0, ended
    return ended


def test_all_methods_are_measured_and_shown(by_bundle):
    result = by_bundle.json
    assert (result["split"], result["users"], result["top_k"], result["history"]) == ("test", 20, [5, 20], 8)
    assert set(result["methods"]) == METHODS
    for row in result["methods"].values():
        assert set(row) == {"recall_5", "ndcg_5", "recall_20", "ndcg_20", "seconds"}
        assert 0 <= row["recall_5"] <= row["recall_20"] <= 1
        assert 0 <= row["ndcg_5"] <= row["recall_5"]  # one target a user
    cells = [f"{100 * result['methods']['als']['recall_20']:.2f}%", "ALS", "recall@20", "NDCG@5", "8 behaviours"]
    assert all(cell in by_bundle.stdout for cell in cells)


def test_the_deep_model_is_that_of_nann_evaluate(pipeline, by_bundle):
    evaluated, methods = pipeline.ended["evaluate"].json, by_bundle.json["methods"]
    assert methods["deep"]["recall_20"] == evaluated["recall_all"]
    best = evaluated["best_baseline"]
    assert evaluated["best_baseline_recall"] == methods[best]["recall_20"]
    assert evaluated["best_baseline_recall"] == max(
        methods[name]["recall_20"] for name in ("popular", "own_items", "item_knn")
    )
    assert "without a deep model: " in pipeline.ended["evaluate"].stdout


def test_a_checkpoint_is_measured_as_its_bundle(pipeline, by_bundle):
    arguments = ("--checkpoint", pipeline.checkpoint, "--top-k", "5,20", "--json")
    methods = nann("baselines", "--data", pipeline.data, *arguments).json["methods"]
    for name in METHODS:
        for metric, value in by_bundle.json["methods"][name].items():
            assert metric == "seconds" or methods[name][metric] == pytest.approx(value), (name, metric)


def test_baselines_alone_read_longer_histories_and_may_exclude_them(pipeline):
    arguments = ("--data", pipeline.data, "--users", 5, "--split", "validation", "--json")
    result = nann("baselines", *arguments).json
    assert (result["history"], result["users"], result["exclude_history"]) == (200, 5, False)
    assert set(result["methods"]) == METHODS - {"deep", "light"}
    excluded = nann("baselines", *arguments, "--history", 3, "--exclude-history").json
    assert (excluded["history"], excluded["exclude_history"]) == (3, True)
    assert excluded["methods"] != result["methods"]


def test_without_implicit_the_rest_is_measured(pipeline, monkeypatch):
    monkeypatch.setitem(sys.modules, "implicit.cpu.als", None)
    ended = nann("baselines", "--data", pipeline.data, "--json")
    assert ended.code == 0
    assert set(ended.json["methods"]) == {"popular", "own_items", "item_knn"}
    assert 'ALS is left out. nann: baselines needs implicit; install it with: pip install "nann[baselines]"' in (
        ended.stderr
    )


def test_two_models_are_refused(pipeline):
    models = ("--bundle", pipeline.bundle, "--checkpoint", pipeline.checkpoint)
    line = refused("baselines", "--data", pipeline.data, *models)
    assert "--bundle and --checkpoint are both given; expected one of them, for one model" in line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--top-k", "20;200"), '--top-k is "20;200"; expected integers'),
        (("--top-k", "0"), "top_k is [0]; expected one or more numbers of at least 1"),
        (("--split", "train"), "split is 'train'; expected 'validation' or 'test'"),
    ],
)
def test_what_can_not_be_measured(pipeline, arguments, message):
    assert message in refused("baselines", "--data", pipeline.data, *arguments)
