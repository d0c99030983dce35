from __future__ import annotations

import sys

import pytest
from support.cli_commands import nann, refused

from nann.bundle import Bundle

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
        assert set(row) == {"recall_5", "ndcg_5", "recall_20", "ndcg_20", "by_frequency", "seconds"}
        of_classes = zip(row["by_frequency"], result["targets_by_frequency"].values(), strict=True)
        hits = sum(share * count for share, count in of_classes if count)
        assert hits == pytest.approx(20 * row["recall_20"])  # one target a user
        assert 0 <= row["recall_5"] <= row["recall_20"] <= 1
        assert 0 <= row["ndcg_5"] <= row["recall_5"]  # one target a user
    cells = [f"{100 * result['methods']['als']['recall_20']:.2f}%", "ALS", "recall@20", "NDCG@5", "8 behaviours"]
    assert all(cell in by_bundle.stdout for cell in cells)
    assert sum(result["targets_by_frequency"].values()) == 20
    assert list(result["targets_by_frequency"]) == ["0", "1-9", "10-49", "50+"]
    assert "recall@20 by how often training saw the target" in by_bundle.stdout
    best = max(row["recall_5"] for row in result["methods"].values())
    assert f"{best:.2%} *" in by_bundle.stdout


def test_evaluate_names_the_best_baseline_once_it_was_measured(pipeline, by_bundle):
    before = pipeline.ended["evaluate"]
    assert (before.json["best_baseline"], before.json["best_baseline_recall"]) == (None, None)
    assert "does the deep model pay? `nann baselines`" in before.stdout
    source = ("evaluate", "--data", pipeline.data, "--bundle", pipeline.bundle)
    after, methods = nann(*source, "--json"), by_bundle.json["methods"]
    assert methods["deep"]["recall_20"] == after.json["recall_all"]
    assert after.json["best_baseline_recall"] == methods[after.json["best_baseline"]]["recall_20"]
    assert after.json["best_baseline_recall"] == max(
        methods[name]["recall_20"] for name in ("popular", "own_items", "item_knn", "als")
    )
    assert f"recall {after.json['best_baseline_recall']:.2%}" in after.stdout
    for other in (("--users", 5), ("--split", "validation"), ("--top-k", 19)):
        assert nann(*source, *other, "--json").json["best_baseline"] is None
    assert nann(*source, "--json").code == 0


def test_a_checkpoint_is_measured_as_its_bundle(pipeline, by_bundle):
    arguments = ("--checkpoint", pipeline.checkpoint, "--top-k", "5,20", "--json")
    methods = nann("baselines", "--data", pipeline.data, *arguments).json["methods"]
    for name in METHODS:
        for metric, value in by_bundle.json["methods"][name].items():
            assert metric == "seconds" or methods[name][metric] == pytest.approx(value), (name, metric)
    assert Bundle.open(pipeline.bundle).notes["baselines"]["test"]["methods"]["deep"]


def test_baselines_alone_read_longer_histories(pipeline):
    arguments = ("--data", pipeline.data, "--users", 5, "--split", "validation", "--json")
    result = nann("baselines", *arguments).json
    assert (result["history"], result["users"], result["exclude_history"]) == (200, 5, False)
    assert set(result["methods"]) == METHODS - {"deep", "light"}
    shorter = nann("baselines", *arguments, "--history", 3).json
    assert shorter["history"] == 3
    assert shorter["methods"] != result["methods"]


def test_history_is_left_out_where_the_data_set_says_so(pipeline, tmp_path):
    columns = ("--user", "uid", "--item", "sku", "--time", "at", "--protocol", "leave-one-out")
    made = nann("prepare", "log", pipeline.folder / "log.csv", *columns, "--out", tmp_path / "data")
    assert made.code == 0, made
    ended = nann("baselines", "--data", tmp_path / "data", "--users", 5, "--json")
    assert ended.json["exclude_history"] is True
    assert "without items of their history" in ended.stdout
    assert ended.json["methods"]["own_items"] | {"seconds": 0} == ended.json["methods"]["popular"] | {"seconds": 0}


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
