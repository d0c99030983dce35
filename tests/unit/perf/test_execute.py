"""Running benchmarks: what is written, what is measured again, and what is only compared."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support import bench_results

from nann.bundle import write_manifest
from nann.errors import ConfigError
from nann.perf import execute, report
from nann.perf.benchmark import Benchmark, BenchSettings
from nann.perf.benchmarks import gate
from nann.perf.headlines import HEADLINES, nested, value_at
from nann.perf.suite import BENCHMARKS, choose_benchmarks


def a_benchmark(name, calls, *, fails=False):
    def run(settings, say):
        calls.append(name)
        if fails:
            raise ConfigError("needs two cores")
        return {"value": len(calls)}

    def plot(result, path: Path):
        path.write_bytes(b"PNG")

    return Benchmark(
        name,
        f"Title of {name}",
        run,
        lambda result: f"It is {result['value']}.",
        {f"{name}.png": plot},
        lambda result: {f"{name}.ratio": result["value"]},
    )


@pytest.fixture
def settings(tmp_path):
    folder = tmp_path / "bundle"
    folder.mkdir()
    graph = {"layer_count": 1, "entry_layer": 0, "hnsw_entry_point": 0}
    search = {"top_k": 1, "ef": [1], "rounds": [1]}
    manifest = {"item_count": 4, "sequence_length": 2, "profile_fields": [], "graph": graph, "search": search}
    write_manifest(folder, manifest, [])
    return BenchSettings(folder, tmp_path, folder, tmp_path, tmp_path / "cache")


def run(benchmarks, settings, out, monkeypatch, **options):
    monkeypatch.setattr(report, "BENCHMARKS", tuple(benchmarks))
    return execute.run_benchmarks(benchmarks, settings, out, command="nann bench", **options)


def test_results_headlines_plots_and_report_are_written(settings, tmp_path, monkeypatch):
    out, calls = tmp_path / "out", []
    body = run([a_benchmark("one", calls)], settings, out, monkeypatch)
    assert json.loads((out / "perf.json").read_text()) == body
    assert body["one"] == {"ratio": 1}
    stored = body["benchmarks"]["one"]
    assert body["machine"] == stored["provenance"]["machine"]
    assert body["date"] == stored["provenance"]["date"]
    assert stored["provenance"]["corpora"]["table1"]["items"] == 4
    assert (out / "one.png").is_file()
    text = (out / "perf.md").read_text()
    assert "## Title of one\n\nIt is 1.\n\n![Title of one](one.png)\n\n<sub>`nann bench`" in text


def test_what_was_measured_is_read_until_it_is_named(settings, tmp_path, monkeypatch):
    out, calls = tmp_path / "out", []
    both = [a_benchmark("one", calls), a_benchmark("two", calls)]
    run(both, settings, out, monkeypatch)
    run(both, settings, out, monkeypatch)
    assert calls == ["one", "two"]
    monkeypatch.setattr(report, "BENCHMARKS", tuple(both))
    body = execute.run_benchmarks(both[1:], settings, out, command="nann bench --only two", again=True)
    assert calls == ["one", "two", "two"]
    assert body["benchmarks"]["one"]["provenance"]["command"] == "nann bench"
    assert body["benchmarks"]["two"]["provenance"]["command"] == "nann bench --only two"


def test_other_settings_are_measured_again(settings, tmp_path, monkeypatch):
    from dataclasses import replace

    calls = []
    one = [a_benchmark("one", calls)]
    run(one, settings, tmp_path / "out", monkeypatch)
    run(one, replace(settings, window_s=1.0), tmp_path / "out", monkeypatch)
    assert calls == ["one", "one"]


def test_what_cannot_run_here_is_left_out_unless_it_is_named(settings, tmp_path, monkeypatch):
    lines, calls = [], []
    both = [a_benchmark("one", calls, fails=True), a_benchmark("two", calls)]
    body = run(both, settings, tmp_path / "out", monkeypatch, say=lines.append)
    assert list(body["benchmarks"]) == ["two"]
    assert "left out: needs two cores" in lines
    with pytest.raises(ConfigError, match="needs two cores"):
        run(both[:1], settings, tmp_path / "out", monkeypatch, again=True)


def test_benchmarks_are_chosen_by_name():
    assert [one.name for one in choose_benchmarks("start, served")] == ["served", "start"]
    assert choose_benchmarks(None) == list(BENCHMARKS)
    with pytest.raises(ConfigError, match='--only has "speed"; expected some of scorer, '):
        choose_benchmarks("speed")


def test_headlines_lie_under_their_keys():
    body = nested({"marking.native_over_numpy": 12.0, "marking.native_over_python": 60.0, "start_s": 4})
    assert body == {"marking": {"native_over_numpy": 12.0, "native_over_python": 60.0}, "start_s": 4}
    assert value_at(body, "marking.native_over_python") == 60.0
    assert value_at(body, "scorer_over_naive") is None


@pytest.mark.parametrize(
    "benchmark", [one for one in BENCHMARKS if one.name in bench_results.RESULTS], ids=lambda b: b.name
)
def test_every_benchmark_of_the_server_writes_about_its_result(benchmark, tmp_path):
    result = bench_results.RESULTS[benchmark.name]
    assert "|" in benchmark.markdown(result)
    for name, plot in benchmark.plots.items():
        plot(result, tmp_path / name)
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
    known = {headline.key for headline in HEADLINES}
    assert set(benchmark.headline(result)) <= known


def test_the_gate_fails_beyond_the_tolerance_and_not_before():
    body = {"benchmarks": {"gate": {"result": {"served_over_scorer_p50": 2.0}}}}
    (gated,) = [one for one in gate.GATED if one.key == "served_over_scorer_p50"]
    worst = 2.0 * (1 + gated.tolerance)

    def measured(value):
        return gate.failed(gate.verdicts(body, {one.key: value for one in gate.GATED}))

    assert measured(worst - 0.01) == []
    assert [one.gated.key for one in measured(worst + 0.01)] == ["served_over_scorer_p50"]


def test_the_gate_knows_which_way_is_worse():
    up = gate.Gated(BENCHMARKS[0], "ratio", True, 0.5)
    assert up.is_worse(4.9, 10.0)
    assert not up.is_worse(5.1, 10.0)


def test_the_gate_needs_something_to_compare_with():
    with pytest.raises(
        ConfigError, match=r"perf.json has no results of the benchmark gate; run `nann bench --only gate`"
    ):
        gate.verdicts({"benchmarks": {}}, {})


def test_the_gate_runs_each_benchmark_once_on_a_small_corpus(settings, monkeypatch, tmp_path):
    from nann.perf.corpora.table1 import Corpus

    calls = []
    one = a_benchmark("one", calls)
    gated = [gate.Gated(one, key, True, 0.5) for key in ("one.ratio", "one.absent")]
    monkeypatch.setattr(gate, "GATED", tuple(gated))
    monkeypatch.setattr(gate, "table1_corpus", lambda *_: Corpus(tmp_path, tmp_path))
    assert gate.run(settings, print) == {"one.ratio": 1.0, "one.absent": None}
    assert calls == ["one"]


def test_a_result_of_another_version_does_not_hide_the_others(settings, tmp_path, monkeypatch):
    benchmarks = [a_benchmark("one", []), a_benchmark("two", [])]
    body = run(benchmarks, settings, tmp_path / "out", monkeypatch)
    body["benchmarks"]["one"]["result"] = {"elsewhere": 1}
    text = report.report(body)
    assert "`nann bench --only one` measures it again" in text
    assert "It is 1." in text
