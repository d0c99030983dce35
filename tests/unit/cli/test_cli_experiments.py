"""`nann experiments` on the tiny log: exit codes, and what it writes."""

from __future__ import annotations

import json

import pytest
from support.cli_commands import nann, refused
from support.reports import tables

from nann.cli import experiments as command

pytestmark = pytest.mark.heavy

KEYS = {"recall_all", "recall_retrieval", "recall_delta", "coverage", "share_scored"}


def test_it_writes_report_json_and_plots(pipeline, tmp_path):
    folders = ("--data", pipeline.data, "--out", tmp_path / "out", "--cache", tmp_path / "cache")
    chosen = ("--config", pipeline.config, "--only", "table3,figure5", "--seeds", 1, "--users", 10, "--steps", 8)
    ended = nann("experiments", *folders, *chosen, "--json")
    assert ended.code == 0, ended
    assert "model 6 of 6" in ended.stderr
    assert "study 2 of 2: Figure 5" in ended.stderr
    assert set(ended.json["table3"]["tiny"]["dnn_attention"]["aux"]) == KEYS
    assert ended.json["studies"] == ["table3", "figure5"]
    written = json.loads((tmp_path / "out" / "experiments.json").read_text())
    assert written["table3"] == ended.json["table3"]
    text = (tmp_path / "out" / "experiments.md").read_text()
    assert "![Figure 5: rounds of the ground layer](figure5_rounds.png)" in text
    config = pipeline.config.name
    command = f"--size quick --config {config} --only table3,figure5 --seeds 1 --steps 8 --users 10"
    assert f"`nann experiments {command}`" in text
    assert str(tmp_path) not in text
    rounds = next(rows for rows in tables(text) if "round" in rows[0])
    points = written["studies"]["figure5"]["result"]["rounds"]
    assert [row["coverage"] for row in rounds] == [f"{point['coverage']:.2%}" for point in points]
    assert (tmp_path / "out" / "figure5_rounds.png").read_bytes()[16:20] == (1200).to_bytes(4, "big")
    again = nann("experiments", *folders, *chosen, "--json")
    assert again.json == ended.json
    assert "training" not in again.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--size", "huge"), 'size is "huge"; expected quick or full'),
        (("--only", "figure1"), '--only has "figure1"; expected some of table3'),
        (("--config", "none.yaml"), "configuration none.yaml can't be read"),
        (("--growth", "10k,20k"), '--growth is "10k,20k"; expected integers'),
        (("--growth", "0,1000"), "growth is [0, 1000]; expected numbers of items of at least 1"),
        (("--ablations", 2), "ablations is 2.0; expected a share of the steps above 0 and at most 1"),
        (("--data", "nowhere"), "nowhere is no prepared data set"),
    ],
)
def test_mistakes_end_with_one_line(arguments, message):
    assert message in refused("experiments", *arguments)


def test_without_data_complete_journey_is_prepared_once(tmp_path, monkeypatch):
    made = []
    monkeypatch.setattr(command, "DEFAULT_DATA", tmp_path / "complete_journey")
    monkeypatch.setattr("nann.cli.prepare.complete_journey", lambda out: made.append(out))
    assert "is no prepared data set" in refused("experiments")
    assert made == [tmp_path / "complete_journey"]
    made[0].mkdir()
    (made[0] / "manifest.json").write_text("{}")
    assert "another kind's" in refused("experiments")
    assert len(made) == 1
