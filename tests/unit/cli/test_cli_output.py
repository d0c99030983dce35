"""Every command's `--help`, `--json` and usage mistakes."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import typer
from support.cli_commands import nann, refused
from support.tiny_log import ITEMS

from nann.bundle import Bundle
from nann.cli import main as cli_main
from nann.cli.demo import Demo, next_commands
from nann.python_backend.repository.install import install_if_new

pytestmark = pytest.mark.heavy


def commands_of(command: object, name: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    found = [name]
    for child, sub in getattr(command, "commands", {}).items():
        found += commands_of(sub, (*name, child))
    return found


COMMANDS = commands_of(typer.main.get_command(cli_main.app))


def test_the_commands():
    names = {name[0] for name in COMMANDS if name}
    assert names == {
        "prepare", "train", "index", "export", "evaluate", "baselines", "tune", "plan-shapes", "build-engine", "serve",
        "deploy", "rollback", "refresh", "filters", "items", "query", "events", "demo", "experiments", "bench",
        "batch", "explore",
    }  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help(command):
    ended = nann(*command, "--help")
    assert ended.code == 0
    assert "Usage: " in ended.stdout
    assert " ".join(command) in ended.stdout
    assert ended.stderr == ""


@pytest.mark.parametrize(
    ("command", "keys"),
    [
        ("prepare", {"path", "name", "counts", "rows", "protocol"}),
        (
            "train",
            {"checkpoint", "steps", "examples", "seconds", "step_ms", "examples_per_s", "peak_memory_bytes"}
            | {"peak_gpu_memory_bytes", "nce_loss", "auxiliary_loss", "light_loss", "best", "best_checkpoint"},
        ),
        ("index", {"bundle", "bundle_id", "item_count", "graph"}),
        ("export", {"bundle", "user_encoder_bytes", "scorer_bytes", "user_state_width", "max_difference", "search"}),
        ("evaluate", {"recall_all", "recall_retrieval", "recall_delta", "coverage", "share_scored", "users"}),
    ],
)
def test_json_is_the_last_line(pipeline, command, keys):
    assert keys <= set(pipeline.ended[command].json)


def test_what_the_json_says_is_true(pipeline):
    prepared, trained, indexed, exported, evaluated = (ended.json for ended in pipeline.ended.values())
    assert prepared["counts"]["items"] == indexed["item_count"] == ITEMS
    assert trained["steps"] == 20
    assert all(Path(trained[name]).is_file() for name in ("checkpoint", "best_checkpoint"))
    assert trained["best"]["step"] == 20
    assert 0 < trained["best"]["recall"] <= 1
    assert "validation recall" in pipeline.ended["train"].stderr
    assert exported["max_difference"] <= exported["tolerance"]
    assert exported["search"] == Bundle.open(pipeline.bundle).notes["tuning"]
    line = " ".join(pipeline.ended["export"].stderr.split())
    covered = f"measured on 10 validation users by nann export, coverage {exported['search']['coverage']:.2%}"
    assert covered in line
    assert ("needs `nann tune`" in line) == (exported["search"]["coverage"] < 0.98)
    assert (evaluated["users"], evaluated["top_k"]) == (20, 20)
    assert 0 < evaluated["coverage"] <= 1
    assert Bundle.open(pipeline.bundle).notes["metrics"]["test"]["coverage"] == evaluated["coverage"]


def test_a_measured_bundle_stays_the_version_that_is_served(pipeline, tmp_path):
    bundle, repository = shutil.copytree(pipeline.bundle, tmp_path / "bundle"), tmp_path / "repository"
    source = ("--data", pipeline.data, "--bundle", bundle)
    assert install_if_new(bundle, repository) == 1
    assert nann("evaluate", *source, "--split", "validation").code == 0
    assert install_if_new(bundle, repository) == 1
    assert nann("tune", *source, "--coverage", 0.5, "--max-share", 1).code == 0
    assert install_if_new(bundle, repository) == 2, "it recommends another search"


def test_figures_are_shown_even_if_they_can_not_be_noted(pipeline, tmp_path, monkeypatch):
    def note(bundle, **notes):
        raise OSError(28, "No space left on device", str(bundle.path / "notes.json"))

    monkeypatch.setattr(Bundle, "note", note)
    for command in ("evaluate", "baselines"):
        ended = nann(command, "--data", pipeline.data, "--bundle", pipeline.bundle, "--json")
        assert ended.code == 2
        assert ended.json["users"] == 20
        assert "notes.json: No space left on device" in ended.stderr


def test_another_split_of_the_log_is_warned_of(pipeline, tmp_path):
    columns = ("--user", "uid", "--item", "sku", "--time", "at", "--category", "genre", "--seed", 5)
    users = ("--validation-users", 10, "--test-users", 20, "--out", tmp_path / "other")
    assert nann("prepare", "log", pipeline.folder / "log.csv", *columns, *users).code == 0
    source = ("--bundle", pipeline.bundle, "--json")
    other = nann("evaluate", "--data", tmp_path / "other", *source)
    assert other.json["same_data"] is False
    assert "was trained on another data set, or on another split of this log" in other.stderr
    own = nann("evaluate", "--data", pipeline.data, *source)
    assert own.json["same_data"] is True
    assert "warning" not in own.stderr
    line = refused("index", "--data", tmp_path / "other", "--checkpoint", pipeline.checkpoint, "--out", tmp_path / "b")
    assert "give the data set it was trained on, or prepare that one again with the same options" in line


@pytest.mark.parametrize("command", ["train", "index", "export"])
def test_words_for_people_stay_out_of_standard_output(pipeline, command):
    assert len(pipeline.ended[command].stdout.splitlines()) == 1


def test_no_command_shows_the_help():
    ended = nann()
    assert "Usage: " in ended.stdout + ended.stderr


@pytest.mark.parametrize(
    "arguments", [("nonsense",), ("train", "--nonsense"), ("train",), ("evaluate", "--users", "x")]
)
def test_usage_mistakes_end_with_2(arguments):
    ended = nann(*arguments)
    assert ended.code == 2
    assert "Traceback" not in ended.stderr


def test_interrupting_is_no_mistake(monkeypatch):
    def interrupted():
        raise KeyboardInterrupt

    monkeypatch.setattr(cli_main, "app", interrupted)
    ended = nann()
    assert (ended.code, ended.stderr) == (130, "interrupted\n")


def test_the_demo_ends_with_a_command_that_works_in_this_shell(tmp_path, monkeypatch):
    run = Demo(tmp_path / "a folder")
    monkeypatch.setattr("shutil.which", lambda name: f"/bin/{name}")
    folder = f"{tmp_path}/a folder"
    histories = f"'{folder}/data/complete_journey/histories'"
    served = f"--bundle '{folder}/bundle' --histories {histories}"
    assert list(next_commands(run).values()) == [
        f"nann explore {served} --data '{folder}/data/complete_journey'",
        f"nann serve {served}",
    ]
    monkeypatch.setattr("shutil.which", lambda name: None)
    monkeypatch.setattr("sys.argv", [".venv/bin/nann", "demo"])
    first, _ = next_commands(Demo(Path("build"))).values()
    assert first.startswith(".venv/bin/nann explore --bundle build/bundle --histories build/")


def test_item_rows_are_exported_and_evaluated_alike(pipeline, tmp_path):
    bundle = shutil.copytree(pipeline.bundle, tmp_path / "bundle")
    source = ("--data", pipeline.data, "--checkpoint", pipeline.checkpoint)
    ended = nann("export", *source, "--bundle", bundle, "--item-rows", "--half", "--json")
    assert ended.code == 0, ended
    assert "item_rows.npy 0." in ended.stderr
    assert Bundle.open(bundle).item_rows.width == ended.json["item_row_width"] > 0
    assert pipeline.ended["export"].json["item_row_width"] == 0
    assert "item_rows.npy" not in pipeline.ended["export"].stderr
    evaluated = nann("evaluate", "--data", pipeline.data, "--bundle", bundle, "--json").json
    before = pipeline.ended["evaluate"].json
    for key in ("recall_all", "recall_retrieval", "coverage", "items_scored"):
        assert evaluated[key] == before[key]
