"""The report machine that studies, benchmarks and the GPU report share, on parts made for the test."""

from __future__ import annotations

import json
import sys
from dataclasses import replace

import pytest
from matplotlib.figure import Figure
from support.reports import drawn, tables

from nann.errors import ConfigError
from nann.training.reports import runner
from nann.training.reports.plots import COLORS, MARKERS, figure, line, percent_axis, plain_log
from nann.training.reports.report import Part, Report
from nann.training.reports.runner import Measuring
from nann.training.reports.store import read_object
from nann.training.reports.text import listing, table

MADE = {
    "command": "make parts",
    "machine": {"cpu": "a processor", "cores": 2, "gpu": None},
    "versions": {"python": "3.11"},
}


def a_part(name, calls, error=None):
    def run():
        calls.append(name)
        if error is not None:
            raise error
        return {"value": len(calls), 7: (1, 2)}

    def plot(result, path):
        path.write_text(f"{name} {result['value']}")

    return Part(
        name,
        f"Title of {name}",
        run,
        lambda result: f"It is {result['value']}.",
        {f"{name}.png": plot},
        lambda result, data: {f"best_{name}": [data, result["value"]]},
    )


def a_report(*parts):
    return Report(
        "numbers.json",
        "numbers.md",
        parts,
        word="part",
        introduction=lambda body: f"# Parts: {len(body.get('parts', {}))}\n",
        section="parts",
        details=lambda made: ["in a test"],
        repeated=("machine",),
        command="make parts",
    )


@pytest.fixture
def run_parts(tmp_path):
    """Runs parts into `out`, results kept in `cache`."""

    def run(parts, report=None, *, again=False, provenance=MADE, **options):
        measuring = Measuring(
            lambda part: part.run(),
            lambda part: {"part": part.name},
            tmp_path / "cache",
            again=again,
            provenance=provenance,
            about={"data": "log"},
        )
        return runner.run_parts(report or a_report(*parts), parts, tmp_path / "out", measuring, **options)

    return run


def test_a_part_may_join_its_result_with_the_stored_one(run_parts):
    def joined(stored, entry):
        earlier = [] if stored is None else stored["result"]["value"]
        return {**entry, "result": {"value": [*earlier, entry["result"]["value"]]}}

    part = replace(a_part("one", []), joined=joined)
    run_parts([part])
    body = run_parts([part], again=True)
    assert body["parts"]["one"]["result"] == {"value": [1, 2]}
    assert body["best_one"] == ["log", [1, 2]]  # the headline is of the joined result


def test_json_markdown_and_plots_are_written(run_parts, tmp_path):
    lines = []
    body = run_parts([a_part("one", [])], say=lines.append)
    out = tmp_path / "out"
    assert json.loads((out / "numbers.json").read_text()) == body
    entry = body["parts"]["one"]
    assert entry["result"] == {"value": 1, "7": [1, 2]}  # as it is read again
    assert entry["data"] == "log"
    assert body["best_one"] == ["log", 1]
    assert body["machine"] == MADE["machine"]
    assert (out / "one.png").read_text() == "one 1"
    made = entry["provenance"]
    assert (out / "numbers.md").read_text() == (
        "# Parts: 1\n\n## Title of one\n\nIt is 1.\n\n![Title of one](one.png)\n\n"
        f"<sub>`make parts`; in a test; a processor, 2 cores, no GPU; python 3.11; {made['date']}, "
        f"{made['took_s']} s</sub>\n"
    )
    assert lines == ["part 1 of 1: Title of one"]


def test_an_interrupted_command_keeps_what_is_done_and_goes_on(run_parts, tmp_path):
    calls = []
    parts = [a_part("one", calls), a_part("two", calls, KeyboardInterrupt())]
    with pytest.raises(KeyboardInterrupt):
        run_parts(parts)
    assert json.loads((tmp_path / "out/numbers.json").read_text())["best_one"] == ["log", 1]
    assert (tmp_path / "out/one.png").exists()
    body = run_parts([parts[0], a_part("two", calls)])
    assert calls == ["one", "two", "two"]
    assert list(body["parts"]) == ["one", "two"]


def test_a_part_is_measured_again_when_asked_and_the_others_stay(run_parts):
    calls = []
    parts = [a_part("one", calls), a_part("two", calls)]
    report = a_report(*parts)
    run_parts(parts, report)
    body = run_parts(parts[1:], report, again=True, provenance={**MADE, "command": "make parts --only two"})
    assert calls == ["one", "two", "two"]
    assert body["parts"]["one"]["provenance"]["command"] == "make parts"
    assert body["parts"]["two"]["provenance"]["command"] == "make parts --only two"
    assert body["parts"]["two"]["result"]["value"] == 3


def test_what_cannot_be_measured_here_is_left_out_or_an_error(run_parts, tmp_path):
    calls, reasons = [], {}
    parts = [a_part("one", calls), a_part("two", calls, ConfigError("needs two cores"))]
    body = run_parts(parts, left_out=lambda part, error: reasons.update({part.name: str(error)}))
    assert reasons == {"two": "needs two cores"}
    assert list(body["parts"]) == ["one"]
    assert json.loads((tmp_path / "out/numbers.json").read_text()) == body
    with pytest.raises(ConfigError, match="needs two cores"):
        run_parts(parts)


def test_a_result_of_another_version_does_not_hide_the_others(run_parts):
    report = a_report(a_part("one", []), a_part("two", []))
    body = run_parts(report.parts, report)
    body["parts"]["one"]["result"] = {"elsewhere": 1}
    text = report.markdown(body)
    assert "Measured by another version; `make parts --only one` measures it again." in text
    assert "It is 1." in text


def test_without_a_section_results_stand_by_themselves(run_parts, tmp_path):
    report = replace(a_report(a_part("one", [])), section=None)
    body = run_parts(report.parts, report, body={"device": "CPU"})
    assert body == {"device": "CPU", "best_one": ["log", 1], "one": {"value": 1, "7": [1, 2]}}
    assert "<sub>" not in (tmp_path / "out/numbers.md").read_text()
    assert "It is 1." in (tmp_path / "out/numbers.md").read_text()


def test_parts_are_chosen_by_name():
    report = a_report(a_part("one", []), a_part("two", []))
    assert [part.name for part in report.chosen("two, one")] == ["one", "two"]
    assert report.chosen(None) == list(report.parts)
    with pytest.raises(ConfigError, match='--only has "three"; expected some of one, two'):
        report.chosen("one,three")


def test_a_missing_matplotlib_is_said_before_anything_is_measured(run_parts, monkeypatch):
    calls = []
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ModuleNotFoundError, match="No module named 'matplotlib'"):
        run_parts([a_part("one", calls)])
    assert calls == []
    assert list(run_parts([replace(a_part("one", calls), plots={})])["parts"]) == ["one"]


@pytest.mark.parametrize(("text", "message"), [("{", "is not JSON"), ("[]", "holds no JSON object but list")])
def test_a_foreign_results_file_is_refused(tmp_path, text, message):
    (tmp_path / "numbers.json").write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_object(tmp_path / "numbers.json")


def test_tables():
    assert table(["a", "b"], [["x", "1"]]) == "| a | b |\n| --- | ---: |\n| x | 1 |"
    text = listing([{"n": 1000, "share": 0.25}, {"n": 2, "share": 1}], {"items": "{n:,}", "share": "{share:.1%}"})
    assert tables(text) == [[{"items": "1,000", "share": "25.0%"}, {"items": "2", "share": "100.0%"}]]


def plotted(path, **options) -> Figure:
    def plot(result, path):
        with figure(path, **options) as axes:
            for one in axes:
                line(one, [1, 10], result, "ours", COLORS[2])
                plain_log(one, "x")
                percent_axis(one.yaxis, "coverage")

    return drawn(plot, [50, 100], path)


def test_a_figure_with_a_title_is_1200_pixels_wide_whatever_its_panels(tmp_path):
    for panels in (1, 2):
        drawing = plotted(tmp_path / "titled.png", title="What it shows", panels=panels)
        assert list(drawing.get_size_inches()) == [8.0, 4.8]
        assert drawing.get_suptitle() == "What it shows"
    assert list(plotted(tmp_path / "plain.png", panels=2).get_size_inches()) == [12.8, 4.4]
    assert list(plotted(tmp_path / "sized.png", size=(3.0, 2.0)).get_size_inches()) == [3.0, 2.0]


def test_curves_and_axes(tmp_path):
    (axes,) = plotted(tmp_path / "plot.png").axes
    (drawn_line,) = axes.lines
    assert (drawn_line.get_color(), drawn_line.get_marker()) == (COLORS[2], MARKERS[2])
    assert axes.get_xscale() == "log"
    assert axes.get_ylabel() == "coverage [%]"
    assert axes.xaxis.get_major_formatter()(1000.0, 0) == "1,000"
    assert axes.yaxis.get_major_formatter()(12.5, 0) == "12.5"
