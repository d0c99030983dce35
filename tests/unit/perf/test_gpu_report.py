"""The GPU report without a GPU: how it shows its numbers, and parts that it could not measure."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from support.gpu_checks import check_gpu_report

from nann.errors import ConfigError
from nann.perf.command import run_command
from nann.perf.gpu import report

BODY = {
    "device": "a GPU",
    "environment": {"date": "2026-01-01", "torch": "2.4"},
    "bundle": {"items": 68_509, "search": "top 200, ef [400], rounds [4]", "widths": [64, 256]},
    "points": [
        {"users": 1, "width": 64, "call_ms": 0.25, "eager_ms": 1.5, "difference": 1e-6, "half_difference": 3e-3},
        {"users": 16, "width": 256, "call_ms": 0.5, "eager_ms": 2.0, "difference": 2e-6, "half_difference": None},
    ],
    "load": [
        {
            "concurrency": 4,
            "qps": 624.4,
            "p50_ms": 6.31,
            "p99_ms": 9.87,
            "users_per_search": 3.2,
            "scorer_calls_per_search": 4.0,
            "scorer_share_of_search": 0.56,
        }
    ],
    "exhaustive_ms": {"1": 4.0, "16": 20.0},
    "skipped": {},
}
SESSION = report.Session(None, Path(), Path(), None, None, None, [1], 1.0, 0)
"""Without plans and without training steps."""


def test_tables_show_the_numbers():
    check_gpu_report(BODY, report.REPORT.markdown(BODY))
    measured = {
        **BODY,
        "training": {"steps": 300.0, "examples_per_s": 12345.6},
        "tensorrt": {"1x64": 2e-4, "2x64": 1e-3},
    }
    text = report.REPORT.markdown(measured)
    check_gpu_report(measured, text)
    assert "It differs by at most 1.0e-03 from onnxruntime on the CPU." in text


@pytest.mark.parametrize(("name", "reason"), [("tensorrt", "no --plans"), ("training", "no --training-steps")])
def test_a_part_that_was_not_asked_for_says_so(name, reason):
    (part,) = report.REPORT.chosen(name)
    with pytest.raises(ConfigError, match=f"^{reason}$"):
        part.run(SESSION)


def test_what_could_not_be_measured_is_named_and_the_rest_is_written(tmp_path, monkeypatch):
    def refuse(session):
        raise ConfigError("TensorRT is not installed")

    parts = tuple(
        replace(part, run=refuse if part.name == "tensorrt" else lambda session, name=part.name: BODY.get(name))
        for part in report.REPORT.parts
        if part.name not in ("training", "strategies")
    )
    monkeypatch.setattr(report, "REPORT", replace(report.REPORT, parts=parts))
    monkeypatch.setattr(report.Bundle, "open", lambda path: None)
    monkeypatch.setattr(report, "_bundle_facts", lambda bundle: BODY["bundle"])
    report.main(out=tmp_path, device="cpu")
    written = json.loads((tmp_path / "report.json").read_text())
    assert written["skipped"] == {"tensorrt": "TensorRT is not installed"}
    assert written["device"] == "CPU"
    assert written["points"] == BODY["points"]
    check_gpu_report(written, (tmp_path / "report.md").read_text())


def test_without_a_gpu_it_is_refused():
    with pytest.raises(
        ConfigError, match="torch sees no GPU; run this where there is one, or rehearse with --device cpu"
    ):
        report.main(device="cuda")


def test_a_mistake_is_one_line_and_exit_code_2(monkeypatch, capsys):
    def main() -> None:
        raise ConfigError("no such folder")

    monkeypatch.setattr("sys.argv", ["command"])
    with pytest.raises(SystemExit) as ended:
        run_command(main)
    assert ended.value.code == 2
    assert capsys.readouterr().err == "error: no such folder\n"
