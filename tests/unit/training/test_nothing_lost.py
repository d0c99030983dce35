"""Runs that are interrupted, diverge or would be overwritten: what was trained stays, and the message says where."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from support.torchrun import two_processes

from nann.errors import ConfigError, DataError
from nann.training.checkpoint import Checkpoint
from nann.training.config import StartConfig, TrainingConfig
from nann.training.objective import TrainingObjective
from nann.training.search.pipeline import index_checkpoint
from nann.training.train import _Run, train

pytestmark = pytest.mark.heavy


def with_steps(config, steps):
    return config.model_copy(update={"optimization": config.optimization.model_copy(update={"steps": steps})})


def break_from(monkeypatch, step, value):
    """Makes the objective's loss this value from a step on, as a diverged run's is."""
    whole, calls = TrainingObjective.forward, []

    def forward(objective, batch):
        losses = whole(objective, batch)
        calls.append(1)
        return losses._replace(total=losses.total * value) if len(calls) >= step else losses

    monkeypatch.setattr(TrainingObjective, "forward", forward)
    return calls


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_diverged_run_stops_at_once_and_keeps_the_last_good_checkpoint(data, config, tmp_path, monkeypatch, value):
    calls = break_from(monkeypatch, 14, value)
    with pytest.raises(ConfigError, match=r"at step 14, so training stopped; .*checkpoint.pt has step 10, before that"):
        train(data, config, tmp_path, checkpoint_every_steps=5)
    assert len(calls) == 14
    kept = Checkpoint.load(tmp_path / "checkpoint.pt")
    assert kept.step == 10
    assert all(bool(tensor.isfinite().all()) for tensor in kept.model.values())


def test_a_run_that_diverges_before_its_first_checkpoint_says_that_there_is_none(data, config, tmp_path, monkeypatch):
    break_from(monkeypatch, 1, float("nan"))
    with pytest.raises(ConfigError, match="is nan at step 1, so training stopped; there is no checkpoint"):
        train(data, config, tmp_path)
    assert not (tmp_path / "checkpoint.pt").exists()


def test_weights_that_are_not_finite_are_never_saved(data, config, tmp_path, monkeypatch):
    whole = _Run._step

    def step(run, module, stage, number, batch):
        losses = whole(run, module, stage, number, batch)
        if number == 6:
            next(run.model.parameters()).data[0] = float("nan")
        return losses

    monkeypatch.setattr(_Run, "_step", step)
    with pytest.raises(ConfigError, match=r"a weight is NaN or infinite at step 7.*has step 6, before that"):
        train(data, config, tmp_path, checkpoint_every_steps=1)
    assert Checkpoint.load(tmp_path / "checkpoint.pt").step == 6


def test_a_corpus_that_can_not_be_trained_on_or_indexed_is_refused_first(data, config, tmp_path):
    one = replace(data, item_ids=data.item_ids[:1])
    with pytest.raises(DataError, match="has 1 item; expected at least 2"):
        train(one, config, tmp_path)
    search = config.search.model_copy(update={"top_k": 301, "ef": (301,), "rounds": (1,)})
    with pytest.raises(ConfigError, match=r"has 300 items and search.top_k is 301, .*: lower search.top_k"):
        train(data, config.model_copy(update={"search": search}), tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_search_can_be_cut_to_the_corpus():
    fitted = TrainingConfig().fitted(150).search
    assert (fitted.top_k, fitted.ef, fitted.rounds) == (150, (100, 150, 150), (1, 3, 5))
    assert TrainingConfig().fitted(1_000_000) == TrainingConfig()


def test_a_run_is_replaced_only_when_told_to(data, config, tmp_path):
    train(data, config, tmp_path, stop_at_step=5)
    (tmp_path / "best.pt").touch()
    with pytest.raises(
        ConfigError, match=r"checkpoint.pt is of an earlier run; go on with it \(--resume\), replace it"
    ):
        train(data, config, tmp_path)
    with pytest.raises(ConfigError, match="both --resume and --overwrite are given; expected one"):
        train(data, config, tmp_path, resume=True, overwrite=True)
    assert Checkpoint.load(tmp_path / "checkpoint.pt").step == 5
    events = set((tmp_path / "tensorboard").iterdir())
    quiet = config.model_copy(update={"validation": config.validation.model_copy(update={"every": 0})})
    assert train(data, quiet, tmp_path, overwrite=True, stop_at_step=3).steps == 3
    assert not (tmp_path / "best.pt").exists()
    assert not events & set((tmp_path / "tensorboard").iterdir())


def test_checkpoints_are_written_by_time_too(data, config, tmp_path, monkeypatch):
    saved = []
    monkeypatch.setattr(Checkpoint, "save", lambda checkpoint, path: saved.append(checkpoint.step))
    quiet = config.model_copy(update={"validation": config.validation.model_copy(update={"every": 0})})
    train(data, quiet, tmp_path, checkpoint_every_s=0)
    assert saved == list(range(1, 31))


def test_search_index_and_validation_may_change_on_resuming_and_are_kept(data, config, tmp_path):
    train(data, config, tmp_path, stop_at_step=20)
    changes = {
        "search": config.search.model_copy(update={"top_k": 20}),
        "index": config.index.model_copy(update={"m": 6}),
        "validation": config.validation.model_copy(update={"every": 7}),
    }
    other = config.model_copy(update=changes)
    report = train(data, other, tmp_path, resume=True)
    assert report.steps == 30
    assert Checkpoint.load(report.checkpoint).config == other
    train(data, config, tmp_path, resume=True)  # no step is left, and yet the settings are the new ones
    assert Checkpoint.load(report.checkpoint).config == config


def test_other_settings_are_named_with_both_values(data, config, tmp_path):
    train(data, config, tmp_path, stop_at_step=2)
    message = r"optimization.steps was 30 and is 40; optimization.batch_size was 32 and is 16; give the same one"
    changed = {"steps": 40, "batch_size": 16}
    other = config.model_copy(update={"optimization": config.optimization.model_copy(update=changed)})
    with pytest.raises(ConfigError, match=message):
        train(data, other, tmp_path, resume=True)
    start = config.model_copy(update={"start": StartConfig(steps=3)})
    with pytest.raises(ConfigError, match=r"start\.steps was None and is 3"):
        train(data, start, tmp_path, resume=True)


def test_another_data_set_is_refused_on_resuming_and_indexing(data, config, tmp_path):
    """The same items, and a user that trained no longer does: another split."""
    trains = np.flatnonzero(data.user_train_end > data.user_first)
    train_end = data.user_train_end.copy()
    train_end[trains[0]] = data.user_first[trains[0]]
    other = replace(data, user_train_end=train_end)
    report = train(data, config, tmp_path / "run", stop_at_step=2)
    with pytest.raises(DataError, match=r"was trained on the data set .*: other items, users or training rows"):
        train(other, config, tmp_path / "run", resume=True)
    with pytest.raises(DataError, match="give the data set it was trained on"):
        index_checkpoint(Checkpoint.load(report.checkpoint), other, tmp_path / "bundle")


def test_the_identity_is_that_of_the_training_rows(data):
    again = replace(data)
    assert again.identity == data.identity
    targets = {**data.user_targets, "test": np.full_like(data.user_targets["test"], -1)}
    assert replace(data, user_targets=targets).identity == data.identity  # the same model comes of it
    items = data.behavior_items.copy()
    items[data.user_first[np.flatnonzero(data.user_train_end > data.user_first)[0]]] += 1
    for change in ({"behavior_items": items}, {"user_ids": data.user_ids + 1}, {"item_ids": data.item_ids + 1}):
        assert replace(data, **change).identity != data.identity


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_saves_and_says_how_to_go_on(data_folder, config, tmp_path, number):
    file, out = tmp_path / "config.yaml", tmp_path / "run"
    file.write_text(with_steps(config, 100_000).model_dump_json())
    arguments = ("--data", data_folder, "--out", out, "--config", file, "--checkpoint-every", 50)
    command = [sys.executable, "-c", "import nann.cli.main as main; main.main()", "train", *map(str, arguments)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
        deadline = time.monotonic() + 120
        while not (out / "checkpoint.pt").is_file() and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(number)
        _, said = process.communicate(timeout=120)
    assert process.returncode == 130, said
    assert "stopping: this step ends and is saved" in said
    found = re.search(
        r"interrupted: \S+checkpoint.pt has step ([\d,]+) of 100,000; go on with `nann train --resume`", said
    )
    step = Checkpoint.load(out / "checkpoint.pt").step
    assert int(found[1].replace(",", "")) == step
    assert "Traceback" not in said


def test_the_second_ctrl_c_ends_at_once(tmp_path):
    code = (
        "import os, signal\n"
        "from nann.training.interruption import Interruption\n"
        "with Interruption() as interruption:\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    print(interruption.requested)\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    print('not reached')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "True\n"
    assert done.stderr.rstrip().endswith("KeyboardInterrupt")


def test_two_processes_stop_after_the_same_step(data_folder, config, tmp_path):
    done = two_processes(
        tmp_path / "run.py",
        "import os, signal\n"
        "from nann.training.config import TrainingConfig\n"
        "from nann.training.data.prepared import PreparedData\n"
        "from nann.training.train import _Run, train\n"
        "from pathlib import Path\n"
        "step = _Run._step\n"
        "def stopped(run, module, stage, number, batch):\n"
        "    if number == 23 and run.process.is_main:\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n"
        "    return step(run, module, stage, number, batch)\n"
        "_Run._step = stopped\n"
        f"config = TrainingConfig.model_validate({with_steps(config, 90).model_dump()!r})\n"
        "try:\n"
        f"    train(PreparedData.load({str(data_folder)!r}), config, Path({str(tmp_path / 'out')!r}))\n"
        "except KeyboardInterrupt as stop:\n"
        "    print('STOPPED', stop)\n",
    )
    assert done.stdout.count("has step 40 of 90") == 2
    assert Checkpoint.load(tmp_path / "out" / "checkpoint.pt").step == 40


def test_a_full_disk_is_named_and_the_checkpoint_before_stays(data, config, tmp_path, monkeypatch):
    report = train(data, config, tmp_path, stop_at_step=5)
    monkeypatch.setattr(torch, "save", lambda body, path, save=torch.save: save(body, "/dev/full"))
    with pytest.raises(OSError, match="can't be written whole; is the disk full") as error:
        train(data, config, tmp_path, resume=True)
    assert error.value.filename == str(tmp_path / "best.pt")
    assert os.listdir(tmp_path).count("checkpoint.pt") == 1
    monkeypatch.undo()
    assert Checkpoint.load(report.checkpoint).step == 5
