"""Running benchmarks: the inputs of a result, its provenance, and the regression gate."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from nann.bundle import write_manifest
from nann.errors import ConfigError
from nann.perf.benchmark import Benchmark, BenchSettings
from nann.perf.benchmarks import gate
from nann.perf.corpora.table1 import Corpus
from nann.perf.execute import CACHE_FOLDER, run_benchmarks
from nann.perf.headlines import value_at
from nann.perf.report import BENCHMARKS, REPORT
from nann.training.reports.machine import machine
from nann.training.reports.store import digest


def a_benchmark(name, calls, *, fails=False):
    def run(settings, say):
        calls.append(name)
        if fails:
            raise ConfigError("needs two cores")
        return {"value": len(calls)}

    return Benchmark(
        name,
        f"Title of {name}",
        run,
        lambda result: f"It is {result['value']}.",
        headline=lambda result: {name: {"ratio": result["value"]}},
    )


@pytest.fixture
def settings(tmp_path):
    folder = tmp_path / "bundle"
    folder.mkdir()
    graph = {"layer_count": 1, "entry_layer": 0, "hnsw_entry_point": 0}
    search = {"top_k": 1, "ef": [1], "rounds": [1]}
    manifest = {"item_count": 4, "sequence_length": 2, "profile_fields": [], "graph": graph, "search": search}
    write_manifest(folder, manifest, [])
    corpus = Corpus(folder, tmp_path)
    return BenchSettings(corpus, corpus, tmp_path / "cache")


def test_results_are_written_with_their_provenance(settings, tmp_path):
    out = tmp_path / "out"
    body = run_benchmarks([a_benchmark("one", [])], settings, out, command="nann bench")
    assert json.loads((out / "perf.json").read_text()) == body
    assert body["one"] == {"ratio": 1}
    made = body["benchmarks"]["one"]["provenance"]
    assert body["machine"] == made["machine"] == machine()
    assert body["date"] == made["date"]
    assert made["command"] == "nann bench"
    assert made["settings"] == {"repeats": 7, "users": 100, "window_s": 5.0}
    assert made["corpora"]["table1"]["items"] == 4
    assert {"python", "nann", "numpy"} <= set(made["versions"])


def test_other_settings_are_measured_again(settings, tmp_path):
    calls = []
    one = [a_benchmark("one", calls)]
    for window_s in (5.0, 1.0, 5.0):
        run_benchmarks(one, replace(settings, window_s=window_s), tmp_path / "out", command="nann bench")
    assert calls == ["one", "one"]


def test_results_of_earlier_versions_are_found(settings, tmp_path):
    """The file's name is a hash of these inputs; if their form changed, an hour of results would be measured again."""
    calls = []
    first = run_benchmarks([a_benchmark("one", calls)], settings, tmp_path / "out", command="nann bench")
    made = first["benchmarks"]["one"]["provenance"]
    inputs = {
        "benchmark": "one",
        "corpora": {name: corpus["id"] for name, corpus in made["corpora"].items()},
        "settings": {"repeats": 7, "users": 100, "window_s": 5.0},
        "machine": machine(),
    }
    assert (settings.cache / CACHE_FOLDER / f"{digest(inputs)}.json").is_file()


def test_what_cannot_run_here_is_left_out_unless_it_is_named(settings, tmp_path):
    lines, calls = [], []
    both = [a_benchmark("one", calls, fails=True), a_benchmark("two", calls)]
    body = run_benchmarks(both, settings, tmp_path / "out", command="nann bench", say=lines.append)
    assert list(body["benchmarks"]) == ["two"]
    assert "left out: needs two cores" in lines
    with pytest.raises(ConfigError, match="needs two cores"):
        run_benchmarks(both[:1], settings, tmp_path / "out", command="nann bench --only one", again=True)


def test_benchmarks_are_chosen_by_name():
    assert [one.name for one in REPORT.chosen("start, served")] == ["served", "start"]
    assert tuple(REPORT.chosen(None)) == BENCHMARKS


def test_a_figure_is_found_under_its_dotted_key():
    body = {"marking": {"native_over_numpy": 12.0, "native_over_python": 60.0}, "start_s": 4}
    assert value_at(body, "marking.native_over_python") == 60.0
    assert value_at(body, "start_s") == 4.0
    assert value_at(body, "marking.absent") is None
    assert value_at(body, "scorer_over_naive") is None


def test_the_gate_fails_beyond_the_tolerance_and_not_before():
    body = {"benchmarks": {"gate": {"result": {"served_over_scorer_p50": 2.0}}}}
    (gated,) = [one for one in gate.GATED if one.key == "served_over_scorer_p50"]
    worst = 2.0 * (1 + gated.tolerance)

    def measured(value):
        verdicts = gate.verdicts(body, {one.key: value for one in gate.GATED})
        return [one.gated.key for one in verdicts if one.regressed]

    assert measured(worst - 0.01) == []
    assert measured(worst + 0.01) == ["served_over_scorer_p50"]


def test_the_gate_knows_which_way_is_worse():
    up = gate.Gated(BENCHMARKS[0], "ratio", True, 0.5)
    assert up.is_worse(4.9, 10.0)
    assert not up.is_worse(5.1, 10.0)


def test_the_gate_needs_something_to_compare_with():
    with pytest.raises(
        ConfigError, match=r"perf.json has no results of the benchmark gate; run `nann bench --only gate`"
    ):
        gate.verdicts({"benchmarks": {}}, {})


def test_the_gate_runs_each_benchmark_once_on_a_small_corpus(monkeypatch, tmp_path):
    calls = []
    one = a_benchmark("one", calls)
    gated = [gate.Gated(one, key, True, 0.5) for key in ("one.ratio", "one.absent")]
    monkeypatch.setattr(gate, "GATED", tuple(gated))
    monkeypatch.setattr(gate, "table1_corpus", lambda *_: Corpus(tmp_path, tmp_path))
    assert gate.measure(tmp_path, 1.0, print) == {"one.ratio": 1.0, "one.absent": None}
    assert calls == ["one"]
