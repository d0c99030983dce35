"""Options for perf_analyzer, and reading its export; tests/integration runs the real program."""

from __future__ import annotations

import pytest

from nann.errors import ConfigError, ServerError
from nann.perf.load import perf_analyzer_install
from nann.perf.load.perf_analyzer import Answer, Load, LoadPoint, read_export
from nann.perf.load.perf_analyzer_install import find_perf_analyzer

MS = 1_000_000
REQUEST = {
    "timestamp": 5 * MS,
    "request_inputs": {"behavior_item_ids": [7, 9]},
    "response_timestamps": [8 * MS],
    "response_outputs": [{"unknown_items": 0, "scores": [0.5, 0.1], "items_scored": 40, "item_ids": [12, 15]}],
}


def export(*requests):
    experiment = {"mode": "concurrency", "value": 2}
    bounds = [0, 500 * MS, 1000 * MS, 2000 * MS]
    return {"experiments": [{"experiment": experiment, "requests": list(requests), "window_boundaries": bounds}]}


def test_every_request_is_read_with_its_answer():
    assert read_export(export(REQUEST)) == LoadPoint("concurrency", 2, 2.0, (Answer((7, 9), 3.0, (12, 15), 40),))


def test_tensors_of_one_element_and_padding():
    request = {
        **REQUEST,
        "request_inputs": {"behavior_item_ids": 7},
        "response_outputs": [{"items_scored": 1, "item_ids": [12, -1]}],
    }
    (answer,) = read_export(export(request)).answers
    assert (answer.behavior_item_ids, answer.item_ids) == ((7,), (12,))


def test_requests_without_an_answer_are_left_out():
    lost = {**REQUEST, "response_timestamps": [], "response_outputs": []}
    assert len(read_export(export(REQUEST, lost)).answers) == 1
    with pytest.raises(ServerError, match="no answer within its windows; choose longer ones"):
        read_export(export(lost))


def test_throughput_and_percentiles():
    point = LoadPoint("concurrency", 1, 0.5, tuple(Answer((1,), ms, (), items) for ms, items in ((1.0, 10), (3.0, 20))))
    summary = point.summary()
    assert (summary["qps"], summary["p50_ms"], summary["items_scored"]) == (4.0, 2.0, 15.0)


def test_the_loop_is_open_only_for_request_rates():
    assert Load(concurrency=4).options() == ["--concurrency-range=4"]
    options = Load(request_rate=12.5).options()
    assert "--request-rate-range=12.5" in options
    assert "--request-distribution=poisson" in options
    assert "--async" in options


def test_the_one_on_path_is_taken(tmp_path, monkeypatch):
    binary = tmp_path / "perf_analyzer"
    binary.write_text("#!/bin/sh\n")
    binary.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_perf_analyzer(tmp_path / "cache").binary == binary


def test_where_it_cannot_be_had_the_error_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(perf_analyzer_install.platform, "machine", lambda: "riscv64")
    with pytest.raises(
        ConfigError, match=r"no perf_analyzer for Linux riscv64; install perf_analyzer so that it is on"
    ):
        find_perf_analyzer(tmp_path / "cache")


def test_a_failed_download_says_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))  # pip runs by its full path; with nothing on offer it fails
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    with pytest.raises(ConfigError, match=r"nvidia-cuda-runtime-cu12.* can't be downloaded: .*; install perf_analyzer"):
        find_perf_analyzer(tmp_path / "cache")


def test_one_that_does_not_run_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    binary = tmp_path / "cache" / "perf_analyzer"
    binary.parent.mkdir()
    binary.write_text("#!/bin/sh\necho cannot open shared object >&2\nexit 127\n")
    binary.chmod(0o755)
    with pytest.raises(ConfigError, match="does not run here: cannot open shared object; install perf_analyzer"):
        find_perf_analyzer(binary.parent)
