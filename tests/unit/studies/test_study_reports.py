"""The committed experiments.json: the code still writes its committed text; tables and plots show its numbers."""

from __future__ import annotations

import copy

import pytest
from support.reports import committed
from support.study_checks import check_study

from nann.training.studies.report import REPORT, STUDIES


@pytest.fixture(scope="module")
def body():
    return committed(REPORT)


@pytest.mark.parametrize("study", STUDIES, ids=lambda study: study.name)
def test_tables_and_plots_show_the_numbers(body, study, tmp_path):
    check_study(study, body["studies"][study.name]["result"], tmp_path)


def test_the_check_sees_another_number(body, tmp_path):
    study = next(study for study in STUDIES if study.name == "figure5")
    result = body["studies"]["figure5"]["result"]
    other = copy.deepcopy(result)
    other["rounds"][0]["recall"] += 0.001
    swapped = copy.copy(study)
    object.__setattr__(swapped, "markdown", lambda _: study.markdown(other))
    with pytest.raises(AssertionError):
        check_study(swapped, result, tmp_path)


def test_the_headlines_at_the_top_are_those_of_the_results(body):
    for study, entry in REPORT.entries(body):
        for key, value in study.headline(entry["result"], data=entry["data"]).items():
            assert body[key] == value, (study.name, key)


def test_the_line_below_a_study_says_where_its_result_comes_from(body):
    text, made = REPORT.markdown(body), body["studies"]["table3"]["provenance"]
    steps = made["configuration"]["optimization"]["steps"]
    assert f"<sub>`{made['command']}`; {steps:,} training steps of" in text
    assert f"{made['users']:,} test users; random seeds {made['seeds']}; {made['machine']['cpu']}" in text
