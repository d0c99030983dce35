from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from support.tiny_log import CONFIG
from support.written import drawn, lines, tables

from nann.errors import DataError
from nann.training.config import TrainingConfig
from nann.training.data.synthetic import SyntheticSpec, catalogue_of
from nann.training.studies import runs
from nann.training.studies.measures import corpus_growth
from nann.training.studies.measures.content_start import content_start
from nann.training.studies.measures.corpus_growth import GrowthSettings

pytestmark = pytest.mark.heavy

SETTINGS = GrowthSettings(
    TrainingConfig.model_validate({**CONFIG, "optimization": {"steps": 20, "batch_size": 32, "warmup_steps": 5}}),
    SyntheticSpec(users=150, behaviors_per_user=30, categories=8),
    wanted_coverage=0.8,
    max_share=1.0,
    tuning_users=10,
    test_users=12,
)


@pytest.fixture(scope="module")
def grown(tmp_path_factory):
    folder = tmp_path_factory.mktemp("growth")
    steps = []
    return folder, corpus_growth.run([800, 400], folder, SETTINGS, steps.append), steps


def test_each_size_runs_all_steps(grown):
    _, result, steps = grown
    assert [entry["items"] for entry in result["sizes"]] == [400, 800]
    assert [entry["name"] for entry in result["sizes"]] == ["synthetic_400", "synthetic_800"]
    for entry in result["sizes"]:
        assert entry["steps"] == 20
        assert entry["tuned"]
        assert entry["validation_coverage"] >= 0.8
        assert 0 < entry["share_scored"] < 1
        assert entry["items_scored"] == pytest.approx(entry["share_scored"] * entry["items"])
        assert entry["test_users"] == 12
    assert result["synthetic_1m"] is None
    json.dumps(result, allow_nan=False)
    assert "synthetic_400: training" in steps


def test_what_was_measured_is_not_measured_again(grown, monkeypatch):
    folder, result, _ = grown

    def fail(*arguments, **options):
        raise AssertionError("nothing should be trained")

    monkeypatch.setattr(runs, "train", fail)
    assert corpus_growth.run([400, 800], folder, SETTINGS) == result
    # Another coverage takes other parameters, and the same model.
    cheaper = corpus_growth.run([400], folder, replace(SETTINGS, wanted_coverage=0.5))["sizes"][0]
    assert cheaper["validation_coverage"] >= 0.5
    assert cheaper["items_scored"] < result["sizes"][0]["items_scored"]
    with pytest.raises(AssertionError, match="nothing should be trained"):
        corpus_growth.run([400], folder, replace(SETTINGS, spec=replace(SETTINGS.spec, seed=9)))


def test_an_interrupted_size_goes_on_where_it_stopped(grown):
    folder, result, _ = grown
    for path in folder.glob("synthetic_800-*/growth-*.json"):
        path.unlink()
    steps = []
    again = corpus_growth.run([800], folder, SETTINGS, steps.append)
    # Data, model and graph are there already.
    assert steps == ["synthetic_800: tuning", "synthetic_800: measuring"]
    assert again["sizes"] == result["sizes"][1:]


def test_plot_and_table(grown, tmp_path):
    _, result, _ = grown
    figure = drawn(corpus_growth.plot, result, tmp_path / "growth.png")
    sizes = result["sizes"]
    assert lines(figure, 0) == [[(entry["items"], 100 * entry["share_scored"]) for entry in sizes]]
    assert lines(figure, 1) == [[(entry["items"], entry["items_scored"]) for entry in sizes]]
    (table,) = tables(corpus_growth.table(result))
    assert [(row[0], row[6]) for row in table] == [
        ("items (synthetic)", "coverage@10"),
        *((str(entry["items"]), f"{entry['coverage']:.2%}") for entry in sizes),
    ]
    million = {**result["sizes"][1], "items": 1_200_000, "recall_delta": None}
    assert "| 1,200,000 |" in corpus_growth.table({**result, "sizes": [million]})


def test_bounds_that_every_search_exceeds_are_refused(tmp_path):
    settings = replace(SETTINGS, max_share=0.001)
    with pytest.raises(DataError, match="every search scores more than 0% of the items; raise max_share"):
        corpus_growth.run([400], tmp_path, settings)


def test_items_with_traits_begin_as_what_they_are(tmp_path):
    spec = SyntheticSpec(items=625, users=150, behaviors_per_user=30, categories=8, traits=2, neighborhood_items=1)
    settings = replace(SETTINGS, spec=spec)
    made = corpus_growth.make_size(625, tmp_path, settings, lambda step: None)
    assert made.checkpoint.step == 20
    weights = content_start(spec, made.data, settings.config).checkpoint.model
    own = weights["item_embedding.weight"][:, 1:].numpy()
    traits = catalogue_of(spec).traits_of(made.data.item_ids)
    apart = np.abs(traits[:, None] - traits).sum(axis=2)
    similar = np.corrcoef(own)
    assert similar[apart == 1].mean() > 0.7
    assert similar[apart >= 12].mean() < 0.2
    trained = made.checkpoint.model["item_embedding.weight"][:, 1:].numpy()
    assert 0 < np.abs(trained - own).mean() < 0.1  # it trained on, and began there
