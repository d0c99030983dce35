"""Trained models and measurements on disk: when they are computed, when they are read, and that they are right."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from nann.best_first_search import best_first_search
from nann.errors import ConfigError
from nann.exact_search import exact_search
from nann.search_params import SearchParams
from nann.training.checkpoint import CHECKPOINT_FILE, Checkpoint
from nann.training.config import ValidationConfig
from nann.training.reports.store import cached, digest
from nann.training.search import measured_users
from nann.training.studies import runs as runs_module
from nann.training.studies.runs import Runs, data_fingerprint, describe, fit_params
from nann.training.studies.settings import study_settings
from nann.training.train import train

pytestmark = pytest.mark.heavy


def refuse(*args, **kwargs):
    raise AssertionError("computed again")


def test_a_kept_measurement_is_that_of_the_search(study_runs, study_setup):
    model = study_runs.get(study_setup.config())
    measured = model.beam(study_setup.search)
    params = fit_params(study_setup.search, model.bundle.graph)
    assert measured == model.users.cut(params.top_k).measure(model.bundle.index, model.scorer, params)
    assert len(measured) == 6
    assert measured["recall_all"] > 0


def test_the_while_loop_is_measured_with_its_own_search(study_runs, study_setup):
    model = study_runs.get(study_setup.config())
    found = best_first_search(model.bundle.graph, model.scorer, model.users.batch, 10, 40)
    measured = model.best_first(10, 40)
    exact = exact_search(model.scorer, model.users.batch, model.data.item_count, 10).items
    shared = [len(set(a) & set(b)) / 10 for a, b in zip(found.items, exact, strict=True)]
    assert measured["coverage"] == pytest.approx(np.mean(shared))
    assert measured["items_scored"] == found.items_scored.mean()


def test_exact_results_are_kept_for_the_largest_k_and_cut(study_runs, study_setup):
    model = study_runs.get(study_setup.config())
    for top_k in (5, 20):
        expected = exact_search(model.scorer, model.users.batch, model.data.item_count, top_k).items
        np.testing.assert_array_equal(model.users.cut(top_k).exact, expected)


def test_the_second_time_nothing_is_computed(study_data, study_setup, tmp_path, monkeypatch):
    config = study_setup.config()
    first = Runs(study_data, tmp_path, study_setup).get(config).beam(study_setup.search)
    for name in ("train", "index_checkpoint", "exact_top", "encode_users_torch"):
        monkeypatch.setattr(runs_module, name, refuse)
    monkeypatch.setattr(measured_users, "beam_search", refuse)
    again = Runs(study_data, tmp_path, study_setup).get(config)
    assert again.beam(study_setup.search) == first
    assert again.states.shape[0] == len(again.users) == 30
    with pytest.raises(AssertionError, match="computed again"):
        again.beam(replace(study_setup.search, rounds=(1, 4)))


def test_another_configuration_or_other_data_is_another_model(study_data, study_setup, tmp_path):
    runs = Runs(study_data, tmp_path, study_setup)
    configs = [study_setup.config(), study_setup.config(seed=2), study_setup.config(epsilon=0.5)]
    assert len({runs.get(config).folder for config in configs}) == 3
    assert len(list(tmp_path.iterdir())) == 3
    other = replace(study_data, behavior_items=study_data.behavior_items[::-1].copy())
    assert data_fingerprint(other) != data_fingerprint(study_data)


def test_what_the_bundle_recommends_makes_no_other_model(study_config, tmp_path):
    other = tmp_path / "other.yaml"
    other.write_text(study_config.read_text().replace("top_k: 10", "top_k: 5"))
    settings = [study_settings("quick", config=str(path)) for path in (study_config, other)]
    assert [one.search.top_k for one in settings] == [10, 5]
    assert settings[0].config() == settings[1].config()


def test_studies_do_not_validate_while_they_train(study_setup):
    assert study_settings("quick").config().validation.every == 0
    config = study_setup.config()
    assert config.model_copy(update={"validation": ValidationConfig(every=1)}).fingerprint == config.fingerprint


def test_an_interrupted_training_goes_on(study_data, study_setup, study_runs, tmp_path):
    config = study_setup.config()
    said = []
    runs = Runs(study_data, tmp_path, study_setup, said.append)
    runs.plan([study_setup.config(seed=2), config, config])
    train(study_data, config, tmp_path / runs.key(config), stop_at_step=5)
    resumed = runs.get(config).checkpoint
    assert said == [f"model 2 of 2: {describe(config)}: training, step 5 to 40"]
    for name, tensor in study_runs.get(config).checkpoint.model.items():
        assert torch.equal(tensor, resumed.model[name]), name


def test_measurements_with_other_weights_are_removed(study_data, study_setup, tmp_path):
    config = study_setup.config()
    runs = Runs(study_data, tmp_path, study_setup)
    model = runs.get(config)
    before = model.bundle.bundle_id
    model.beam(study_setup.search)
    checkpoint = Checkpoint.load(model.folder / CHECKPOINT_FILE)
    weights = {
        name: tensor * 1.01 if tensor.is_floating_point() else tensor for name, tensor in checkpoint.model.items()
    }
    replace(checkpoint, model=weights).save(model.folder / CHECKPOINT_FILE)
    again = runs.get(config)
    assert again.bundle.bundle_id != before
    assert not (again.folder / "measured").exists()


def test_parameters_are_fitted_to_a_graph_without_the_upper_layers(study_runs, study_setup):
    graph = study_runs.get(study_setup.config()).bundle.graph
    assert graph.entry_layer == 1
    assert fit_params(SearchParams(5, (7, 8, 9), (1, 2, 3)), graph) == SearchParams(5, (8, 9), (2, 3))


def test_results_are_kept_by_their_inputs(tmp_path):
    computed = []

    def compute():
        computed.append(1)
        return {"pair": (1, 2)}

    for inputs in ({"a": 1, "b": (2,)}, {"b": [2], "a": 1}):
        assert cached(tmp_path, inputs, compute) == {"pair": [1, 2]}
    assert computed == [1]
    cached(tmp_path, {"a": 2}, compute)
    (tmp_path / f"{digest({'a': 2})}.json").write_text("{")
    assert cached(tmp_path, {"a": 2}, compute) == {"pair": [1, 2]}
    assert len(computed) == 3


def test_settings_of_each_size():
    quick, full = study_settings("quick"), study_settings("full")
    assert (len(quick.seeds), len(full.seeds)) == (1, 3)
    assert study_settings("quick", steps=7, users=9).base.optimization.steps == 7
    assert study_settings("quick", users=9).users == 9
    grown = study_settings("quick", growth=(500, 2_000_000))
    assert (grown.growth_items, grown.seeded_items) == ((500, 2_000_000), (2_000_000,))
    for settings in (quick, full):
        assert 0.0 in settings.epsilon_sweep()
        assert settings.epsilon in settings.epsilon_sweep()
        assert settings.config(epsilon=0) == settings.config(auxiliary=False) == settings.config(reading="none")
        assert settings.config(epsilon=settings.epsilon) == settings.config()
        assert len(settings.beam_sweep()) == len(settings.beam_ef) * len(settings.beam_rounds)


def test_settings_that_make_no_sense_are_refused(study_config, tmp_path):
    with pytest.raises(ConfigError, match='size is "huge"; expected quick or full'):
        study_settings("huge")
    path = tmp_path / "none.yaml"
    path.write_text("loss: {auxiliary: {reading: none}}")
    with pytest.raises(ConfigError, match="trains without the auxiliary loss"):
        study_settings("quick", config=str(path))
