"""Running studies: what is written, and that an interrupted command goes on."""

from __future__ import annotations

import json
import sys
from dataclasses import replace

import pytest

from nann.errors import ConfigError
from nann.training.reports.machine import machine
from nann.training.reports.store import read_object
from nann.training.studies.execute import RESULTS_FILE, choose_studies, run_studies
from nann.training.studies.runs import Runs
from nann.training.studies.study import Study


def a_study(name, calls, *, fails=False, settings_of=lambda settings: settings.users):
    def run(runs, settings):
        calls.append(name)
        if fails:
            raise KeyboardInterrupt
        return {"value": 0.5}

    return Study(
        name,
        f"About {name}",
        configs=lambda settings: [settings.config()],
        inputs=settings_of,
        run=run,
        markdown=lambda result: f"value {result['value']}",
        plots={f"{name}.png": lambda result, path: path.write_bytes(b"png")},
        headline=lambda result, data_name: {name: {data_name: result["value"]}},
    )


@pytest.fixture
def started(study_data, study_setup, tmp_path):
    return Runs(study_data, tmp_path / "cache", study_setup), study_setup, tmp_path / "out"


def test_an_interrupted_command_keeps_what_is_done_and_goes_on(started):
    runs, settings, out = started
    calls = []
    first, second = a_study("one", calls), a_study("two", calls, fails=True)
    with pytest.raises(KeyboardInterrupt):
        run_studies([first, second], runs, settings, out, command="nann experiments")
    assert json.loads((out / "experiments.json").read_text())["one"] == {"log": 0.5}
    assert (out / "one.png").exists()
    body = run_studies([first, a_study("two", calls)], runs, settings, out, command="nann experiments")
    assert calls == ["one", "two", "two"]
    assert body == json.loads((out / "experiments.json").read_text())
    assert set(body["studies"]) == {"one", "two"}


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
    assert again["studies"]["one"]["provenance"]["command"] == "a"  # who computed it, not who read it


def test_provenance_says_where_a_result_comes_from(started, study_setup):
    runs, settings, out = started
    body = run_studies([a_study("one", [])], runs, settings, out, command="nann experiments")
    found = body["studies"]["one"]["provenance"]
    assert found["seeds"] == [1, 2]
    assert found["users"] == 30
    assert found["configuration"]["optimization"] == study_setup.base.optimization.model_dump(mode="json")
    assert set(found["machine"]) == {"cpu", "cores", "gpu"}
    assert machine()["cores"] >= 1
    assert {"python", "nann", "torch", "numpy", "hnswlib"} == set(found["versions"])


def test_studies_are_chosen_by_name():
    assert [study.name for study in choose_studies("figure5, table3")] == ["table3", "figure5"]
    assert len(choose_studies(None)) >= 7
    with pytest.raises(ConfigError, match='--only has "figure9"; expected some of table3, figure3'):
        choose_studies("table3,figure9")


@pytest.mark.parametrize(("text", "message"), [("{", "is not JSON"), ("[]", "holds no JSON object but list")])
def test_a_foreign_experiments_json_is_refused(tmp_path, text, message):
    (tmp_path / "experiments.json").write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_object(tmp_path / RESULTS_FILE)


def test_a_missing_matplotlib_is_said_before_the_training(started, monkeypatch):
    runs, settings, out = started
    calls = []
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ConfigError, match=r"matplotlib, which draws the plots, is missing: pip install"):
        run_studies([a_study("one", calls)], runs, settings, out, command="nann experiments")
    assert calls == []
