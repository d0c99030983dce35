"""A user's mistake ends every command with one clear line and exit code 2, never with a traceback."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from support.cli_commands import Pipeline, nann, refused

from nann.cli.serve import _look_after
from nann.python_backend.server.triton import ServerOptions, TritonServer

pytestmark = pytest.mark.heavy


@pytest.fixture
def copied(pipeline: Pipeline, tmp_path: Path) -> Path:
    """A copy of the bundle that a test may break."""
    return Path(shutil.copytree(pipeline.bundle, tmp_path / "bundle"))


# prepare


def test_an_unknown_column(pipeline, tmp_path):
    log = pipeline.folder / "log.csv"
    line = refused(
        "prepare", "log", log, "--user", "customer", "--item", "sku", "--time", "at", "--out", tmp_path / "d"
    )
    assert "customer" in line
    assert "uid" in line  # a column that exists
    assert not (tmp_path / "d").exists()


@pytest.mark.parametrize("content", ["", "user,item,time\n"])
def test_an_empty_log(tmp_path, content):
    (tmp_path / "log.csv").write_text(content)
    line = refused("prepare", "log", tmp_path / "log.csv", "--out", tmp_path / "d")
    assert "log.csv" in line or "empty" in line
    assert not (tmp_path / "d").exists()


def test_a_log_of_nothing_but_short_histories(tmp_path):
    (tmp_path / "log.csv").write_text("user,item,time\n1,1,1\n")
    assert "min" in refused("prepare", "log", tmp_path / "log.csv", "--out", tmp_path / "d")


def test_a_log_that_is_missing(tmp_path):
    assert "nowhere.csv" in refused("prepare", "log", tmp_path / "nowhere.csv", "--out", tmp_path / "d")
    assert "nowhere.csv" in refused("prepare", "userbehavior", tmp_path / "nowhere.csv", "--out", tmp_path / "d")


def test_a_folder_that_is_no_data_set_is_not_replaced(pipeline, tmp_path):
    (tmp_path / "thesis.tex").write_text("irreplaceable")
    log = pipeline.folder / "log.csv"
    columns = ("--user", "uid", "--item", "sku", "--time", "at")
    assert str(tmp_path) in refused("prepare", "log", log, *columns, "--out", tmp_path)
    assert (tmp_path / "thesis.tex").read_text() == "irreplaceable"


# train


def test_a_data_set_that_is_missing(pipeline, tmp_path):
    nowhere = tmp_path / "nowhere"
    source = ("--data", nowhere, "--checkpoint", pipeline.checkpoint)
    for arguments in (
        ("train", "--data", nowhere, "--config", pipeline.config, "--out", tmp_path / "t"),
        ("index", *source, "--out", tmp_path / "b"),
        ("export", *source, "--bundle", pipeline.bundle),
        ("evaluate", "--data", nowhere, "--bundle", pipeline.bundle),
        ("baselines", "--data", nowhere),
    ):
        line = refused(*arguments)
        assert "nowhere" in line
        assert "nann prepare" in line


def test_a_folder_that_can_not_be_made(pipeline, tmp_path):
    (tmp_path / "file").touch()
    line = refused("train", "--data", pipeline.data, "--config", pipeline.config, "--out", tmp_path / "file" / "t")
    assert line == f"error: {tmp_path / 'file' / 't'}: Not a directory"


def test_a_run_that_has_nothing_left_to_do_prints_json_without_nan(pipeline, tmp_path):
    shutil.copytree(pipeline.folder / "train", tmp_path / "t")
    source = ("--data", pipeline.data, "--config", pipeline.config, "--out", tmp_path / "t")
    ended = nann("train", *source, "--resume", "--json")
    body = json.loads(ended.stdout.splitlines()[-1], parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
    assert [body[name] for name in ("nce_loss", "auxiliary_loss", "light_loss")] == [None] * 3


def test_a_run_is_not_overwritten_unasked_and_goes_on_with_its_own_configuration(pipeline, tmp_path):
    shutil.copytree(pipeline.folder / "train", tmp_path / "t")
    source = ("train", "--data", pipeline.data, "--out", tmp_path / "t")
    assert "is of an earlier run; go on with it (--resume), replace it (--overwrite), or choose" in refused(*source)
    assert nann(*source, "--resume", "--json").json["steps"] == 20  # auto: the checkpoint's configuration
    line = refused(*source, "--resume", "--steps", 40)
    assert "optimization.steps was 20 and is 40; give the same one to resume, or train from the start" in line
    again = nann(*source, "--overwrite", "--steps", 2, "--config", pipeline.config, "--json")
    assert again.json["steps"] == 2


def test_a_corpus_smaller_than_top_k_is_refused_before_training_and_auto_fits_it(tmp_path):
    log, data = tmp_path / "log.csv", tmp_path / "data"
    rows = (f"{user},{1 + (user + time) % 40},{time}\n" for user in range(40) for time in range(12))
    log.write_text("user,item,time\n" + "".join(rows))
    users = ("--validation-users", 3, "--test-users", 3)
    assert nann("prepare", "log", log, *users, "--out", data).code == 0
    source = ("train", "--data", data, "--out", tmp_path / "t")
    line = refused(*source, "--config", "custom_log")
    assert "the data set has 40 items and search.top_k is 200, more than there are: lower search.top_k" in line
    assert not (tmp_path / "t").exists()
    ended = nann(*source, "--steps", 2)
    assert ended.code == 0
    assert "the search retrieves 40 items: there are no more" in ended.stderr
    assert (
        nann("index", "--data", data, "--checkpoint", tmp_path / "t/checkpoint.pt", "--out", tmp_path / "b").code == 0
    )


def test_an_unknown_configuration(pipeline, tmp_path):
    line = refused("train", "--data", pipeline.data, "--config", "nonsense", "--out", tmp_path / "t")
    assert "configuration nonsense can't be read" in line
    assert "complete_journey_demo.yaml" in line


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("optimization: {stepz: 5}", "optimization.stepz: Extra inputs are not permitted"),
        ("optimization: {steps: many}", "optimization.steps: Input should be a valid integer"),
        ("model: {architecture: transformer}", "model.architecture: Input should be"),
        ("search: {top_k: 50, ef: [20], rounds: [1]}", "the last ef at least top_k"),
        ("model: [", "is not YAML"),
        ("just words", "holds str; expected sections"),
    ],
)
def test_a_configuration_with_mistakes(pipeline, tmp_path, text, message):
    (tmp_path / "config.yaml").write_text(text)
    line = refused("train", "--data", pipeline.data, "--config", tmp_path / "config.yaml", "--out", tmp_path / "t")
    assert str(tmp_path / "config.yaml") in line
    assert message in line


def test_resuming_what_was_not_begun(pipeline, tmp_path):
    arguments = ("--data", pipeline.data, "--config", pipeline.config, "--out", tmp_path / "t", "--resume")
    assert "checkpoint.pt does not exist; train one with `nann train`" in refused("train", *arguments)


# index and export


def test_a_checkpoint_that_is_missing_or_is_none(pipeline, tmp_path):
    for command in (("index", "--out", tmp_path / "b"), ("export", "--bundle", pipeline.bundle)):
        line = refused(*command, "--data", pipeline.data, "--checkpoint", tmp_path / "nowhere.pt")
        assert "nowhere.pt does not exist; train one with `nann train`" in line
        line = refused(*command, "--data", pipeline.data, "--checkpoint", pipeline.config)
        assert "config.yaml is not a checkpoint of `nann train`" in line
    assert not (tmp_path / "b").exists()


def with_config(checkpoint: Path, to: Path, **changes: dict) -> Path:
    """The checkpoint with another configuration written into it."""
    body = torch.load(checkpoint, weights_only=True)
    config = json.loads(body["config"])
    for section, values in changes.items():
        config[section].update(values)
    torch.save({**body, "config": json.dumps(config)}, to)
    return to


@pytest.mark.parametrize("architecture", ["two_sided", "no_attention"])
def test_a_checkpoint_of_another_architecture(pipeline, tmp_path, architecture):
    other = with_config(pipeline.checkpoint, tmp_path / "other.pt", model={"architecture": architecture})
    line = refused("index", "--data", pipeline.data, "--checkpoint", other, "--out", tmp_path / "b")
    assert f"the checkpoint is of another architecture than `{architecture}` as configured" in line
    assert not (tmp_path / "b").exists()


def test_fewer_items_than_top_k(pipeline, tmp_path):
    search = {"top_k": 301, "ef": [20, 400], "rounds": [1, 4]}
    other = with_config(pipeline.checkpoint, tmp_path / "other.pt", search=search)
    line = refused("index", "--data", pipeline.data, "--checkpoint", other, "--out", tmp_path / "b")
    assert "the data set has 300 items and top_k is 301; lower search.top_k and ef" in line
    assert not (tmp_path / "b").exists()


def test_a_checkpoint_that_was_not_indexed(pipeline, copied, tmp_path):
    body = torch.load(pipeline.checkpoint, weights_only=True)
    body["model"] = {
        name: weight + 1 if weight.is_floating_point() else weight for name, weight in body["model"].items()
    }
    torch.save(body, tmp_path / "other.pt")
    line = refused("export", "--data", pipeline.data, "--checkpoint", tmp_path / "other.pt", "--bundle", copied)
    assert "was indexed from another checkpoint" in line


def test_a_folder_that_is_no_bundle_is_not_replaced(pipeline, tmp_path):
    (tmp_path / "thesis.tex").write_text("irreplaceable")
    source = ("--data", pipeline.data, "--checkpoint", pipeline.checkpoint)
    assert "exists and is not a bundle" in refused("index", *source, "--out", tmp_path)
    assert (tmp_path / "thesis.tex").read_text() == "irreplaceable"


# bundles


def commands_on(pipeline: Pipeline, bundle: Path) -> list[tuple[object, ...]]:
    """Commands that read a bundle; `serve` is in tests/integration/test_serve_command.py."""
    source = ("--data", pipeline.data)
    return [
        ("export", *source, "--checkpoint", pipeline.checkpoint, "--bundle", bundle),
        ("evaluate", *source, "--bundle", bundle),
    ]


def test_a_bundle_that_is_missing(pipeline, tmp_path):
    for command in commands_on(pipeline, tmp_path / "nowhere"):
        assert "nowhere is not a bundle: it has no manifest.json; make one with `nann index`" in refused(*command)


@pytest.mark.parametrize("name", ["item_ids.npy", "layer0.neighbors.npy", "scorer.onnx"])
def test_a_bundle_with_a_changed_byte(pipeline, copied, name):
    content = bytearray((copied / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copied / name).write_bytes(content)
    for command in commands_on(pipeline, copied):
        line = refused(*command)
        assert f"{name} has sha256" in line
        assert "the file was changed after the bundle was made" in line


def test_an_onnx_file_that_does_not_match_the_manifest(pipeline, copied):
    shutil.copy(copied / "user_encoder.onnx", copied / "scorer.onnx")
    for command in commands_on(pipeline, copied):
        assert "scorer.onnx has " in refused(*command)


def test_a_file_of_the_bundle_that_is_missing(pipeline, copied):
    (copied / "item_vectors.npy").unlink()
    for command in commands_on(pipeline, copied):
        assert "item_vectors.npy is missing" in refused(*command)


def test_a_bundle_that_was_not_exported(pipeline, tmp_path):
    source = ("--data", pipeline.data, "--checkpoint", pipeline.checkpoint)
    assert nann("index", *source, "--out", tmp_path / "bundle").code == 0
    line = refused("evaluate", "--data", pipeline.data, "--bundle", tmp_path / "bundle")
    assert "lacks user_encoder.onnx and scorer.onnx; run `nann export`" in line


# evaluate


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--ef", "20,many"), "ef is '20,many'; expected whole numbers separated by commas"),
        (("--ef", ""), "ef is ''; expected whole numbers"),
        (("--rounds", "1;4"), "rounds is '1;4'; expected whole numbers"),
        (("--ef", "20,30,60", "--rounds", "1,2,4"), "ef is '20,30,60'; expected 2 whole numbers"),
        (("--ef", "60"), "ef is '60'; expected 2 whole numbers"),
        (("--ef", "20,10"), "ef of the ground layer is 10 and top_k 20"),
        (("--ef", "0,60"), "ef: 0 is out of bounds; expected 1 to"),
        (("--rounds=-1,2",), "rounds: -1 is out of bounds; expected 0 to"),
        (("--top-k", "301", "--ef", "20,400"), "top_k is 301; expected 1 to 300, the number of items"),
        (("--split", "train"), 'split is "train"; expected validation or test'),
    ],
)
def test_search_parameters_that_can_not_be(pipeline, arguments, message):
    assert message in refused(
        "evaluate", "--data", pipeline.data, "--bundle", pipeline.bundle, "--entry", "layers", *arguments
    )


def test_a_server_that_stopped_before_it_is_watched_is_left_to_the_wait():
    """Triton may be killed between the welcome and the first look at its processes."""
    stopped = TritonServer(ServerOptions(Path("repository"), "127.0.0.1", 1, 2, 3))
    assert stopped.pid is None
    assert _look_after(stopped)() is None
