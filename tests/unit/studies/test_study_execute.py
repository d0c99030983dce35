"""Running studies: what a result depends on, and its provenance."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from nann.training.reports.machine import machine
from nann.training.reports.store import digest
from nann.training.studies.execute import CACHE_FOLDER, run_studies
from nann.training.studies.report import REPORT, STUDIES
from nann.training.studies.runs import Runs
from nann.training.studies.study import Study


def a_study(name, calls):
    def run(runs, settings):
        calls.append(name)
        return {"value": 0.5}

    return Study(
        name,
        f"About {name}",
        run,
        markdown=lambda result: f"value {result['value']}",
        headline=lambda result, data: {name: {data: result["value"]}},
        inputs=lambda settings: settings.users,
    )


@pytest.fixture
def started(study_data, study_setup, tmp_path):
    return Runs(study_data, tmp_path / "cache", study_setup), study_setup, tmp_path / "out"


def test_results_are_written_with_the_name_of_the_data_set(started):
    runs, settings, out = started
    body = run_studies([a_study("one", [])], runs, settings, out, command="nann experiments")
    assert body == json.loads((out / "experiments.json").read_text())
    assert body["one"] == {"log": 0.5}
    assert body["studies"]["one"]["data"] == "log"
    assert body["studies"]["one"]["result"] == {"value": 0.5}


def test_other_settings_are_computed_and_other_results_stay(started):
    runs, settings, out = started
    calls = []
    out.mkdir()
    (out / "experiments.json").write_text('{"tuned": {"coverage": 0.99}}')
    run_studies([a_study("one", calls)], runs, settings, out, command="a")
    body = run_studies([a_study("one", calls)], runs, replace(settings, users=7), out, command="b")
    assert calls == ["one", "one"]
    assert body["tuned"] == {"coverage": 0.99}
    assert body["studies"]["one"]["provenance"]["command"] == "b"
    again = run_studies([a_study("one", calls)], runs, settings, out, command="c")
    assert (
        again["studies"]["one"]["provenance"]["command"] == "a"
    )  # the command that computed it, not the one that read it


def test_results_of_earlier_versions_are_found(started):
    """The file's name is a hash of these inputs: another form of them would compute hours of results again."""
    runs, settings, out = started
    calls = []
    one = a_study("one", calls)
    models = [runs.key(config) for config in one.configs(settings)]
    inputs = {"study": "one", "data": runs.fingerprint, "users": 30, "models": models, "inputs": 30}
    stored = {"provenance": {"command": "earlier"}, "result": {"value": 0.25}}
    path = runs.folder / CACHE_FOLDER / f"{digest(inputs)}.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"inputs": inputs, "result": stored}))
    body = run_studies([one], runs, settings, out, command="now")
    assert calls == []
    assert body["studies"]["one"] == {"data": "log", **stored}


def test_provenance_says_where_a_result_comes_from(started, study_setup):
    runs, settings, out = started
    body = run_studies([a_study("one", [])], runs, settings, out, command="nann experiments")
    found = body["studies"]["one"]["provenance"]
    assert found["seeds"] == [1, 2]
    assert found["users"] == 30
    assert found["configuration"]["optimization"] == study_setup.base.optimization.model_dump(mode="json")
    assert found["machine"] == machine()
    assert machine()["cores"] >= 1
    assert {"python", "nann", "torch", "numpy", "hnswlib"} == set(found["versions"])


def test_a_study_trains_the_base_model_unless_it_names_others(study_setup):
    assert a_study("one", []).configs(study_setup) == [study_setup.config()]
    models = {study.name: len(study.configs(study_setup)) for study in STUDIES}
    assert models["table3"] == 6 * len(study_setup.seeds)
    assert models["figure5"] == models["tuned"] == models["seeded"] == 1
    assert models["growth"] == 0


def test_studies_are_chosen_by_name():
    assert [study.name for study in REPORT.chosen("figure5, table3")] == ["table3", "figure5"]
    assert tuple(REPORT.chosen(None)) == STUDIES
