"""`nann bench`: mistakes that are refused before anything is started, and the exit code of the gate."""

from __future__ import annotations

import json

import pytest
from support.cli_commands import nann

from nann.perf.benchmarks import gate


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--only", "speed"), '--only has "speed"; expected some of'),
        (("--real", "bundle"), "give both --real, a bundle, and --data"),
        (("--real", "nowhere", "--data", "nowhere"), "nowhere is no bundle with exported models"),
        (("--check",), "perf.json has no results of the benchmark gate; run `nann bench --only gate`"),
    ],
)
def test_mistakes_end_with_one_line(tmp_path, arguments, message):
    ended = nann("bench", *arguments, "--out", tmp_path, "--cache", tmp_path / "cache")
    assert ended.code == 2
    assert message in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(("worse_by", "code"), [(0.9, 0), (1.1, 1)])
def test_the_gate_fails_the_command_beyond_its_tolerance(tmp_path, monkeypatch, worse_by, code):
    expected = {one.key: 10.0 for one in gate.GATED}
    (tmp_path / "perf.json").write_text(json.dumps({"benchmarks": {"gate": {"result": expected}}}))
    now = {
        one.key: 10.0 * (1 - worse_by * one.tolerance if one.higher_is_better else 1 + worse_by * one.tolerance)
        for one in gate.GATED
    }
    monkeypatch.setattr(gate, "measure", lambda cache, window_s, say: now)
    ended = nann("bench", "--check", "--out", tmp_path, "--cache", tmp_path / "cache", "--json")
    assert ended.code == code
    assert ended.json == {key: {"expected": 10.0, "measured": pytest.approx(value)} for key, value in now.items()}
