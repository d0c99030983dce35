"""Every command that a bundle goes through, with a bundle of modules from outside this project."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from support.cli_commands import nann, refused
from torch import nn
from torch.nn import functional
from typer.main import get_command

from nann.bundle import Bundle
from nann.cli.main import app
from nann.python_backend.repository.install import install_bundle
from nann.training import SearchConfig, create_bundle, export_to_bundle
from nann.training.data.prepared import PreparedData

pytestmark = pytest.mark.heavy


class Encoder(nn.Module):
    def __init__(self, table):
        super().__init__()
        self.register_buffer("table", table)

    def forward(self, behaviors, profile_codes):
        known = (behaviors >= 0).unsqueeze(-1)
        return (functional.embedding(behaviors.clamp(min=0), self.table) * known).sum(1) / known.sum(1).clamp(min=1)


class Scorer(Encoder):
    def forward(self, user_state, candidates):
        return (functional.embedding(candidates.clamp(min=0), self.table) @ user_state.unsqueeze(-1)).squeeze(-1)


@pytest.fixture(scope="module")
def made(pipeline, tmp_path_factory):
    """A bundle of own modules for the items of a prepared data set."""
    ids = PreparedData.load(pipeline.data).item_ids
    vectors = np.random.default_rng(0).normal(size=(len(ids), 8)).astype(np.float32)
    path = tmp_path_factory.mktemp("own") / "bundle"
    search = SearchConfig(top_k=10, ef=(10, 20, 60), rounds=(1, 2, 3))
    bundle = create_bundle(path, item_ids=ids, item_vectors=vectors, sequence_length=6, search=search, threads=1)
    table = torch.from_numpy(vectors)
    export_to_bundle(bundle, Encoder(table), Scorer(table))
    return path


@pytest.fixture
def bundle(made, tmp_path):
    return shutil.copytree(made, tmp_path / "bundle")


WALKED = {"evaluate", "tune", "plan-shapes", "baselines", "export", "build-engine", "batch", "refresh"}
LIVE = {"serve", "deploy", "query", "explore"}
"""Those that need a server: tests/integration/test_custom_scorer.py, and `install_bundle` below for the first two."""


def test_these_are_all_commands_that_take_a_bundle():
    group = get_command(app)
    assert isinstance(group.commands, dict)
    takes = {
        name for name, command in group.commands.items() if any(option.name == "bundle" for option in command.params)
    }
    assert takes == WALKED | LIVE


@pytest.mark.parametrize(
    "command",
    [("evaluate",), ("tune", "--coverage", 0.5, "--max-share", 1), ("plan-shapes",), ("baselines", "--top-k", "5")],
)
def test_what_takes_a_prepared_data_set(pipeline, bundle, command):
    ended = nann(*command, "--bundle", bundle, "--data", pipeline.data, "--json")
    assert ended.code == 0, ended
    assert ended.json


def test_all_users_are_answered(pipeline, bundle, tmp_path):
    ended = nann("batch", "--bundle", bundle, "--data", pipeline.data, "--out", tmp_path / "out", "--json")
    assert ended.code == 0, ended
    assert ended.json["users"] > 0


def test_its_scorer_has_the_items_inside_so_that_they_can_not_change(bundle, tmp_path):
    assert "nann export --item-rows" in refused("refresh", "--bundle", bundle, "--repository", tmp_path)


def test_half_precision_needs_no_checkpoint(bundle):
    ended = nann("export", "--half", "--bundle", bundle, "--json")
    assert ended.code == 0, ended
    assert ended.json["half_precision"]["coverage"] >= 0.95
    assert "scorer.fp16.onnx" in Bundle.open(bundle).manifest["files"]
    line = refused("export", "--bundle", bundle)
    assert "was not indexed from a checkpoint: export its modules in Python, with nann.training.export_to_" in line


def test_a_checkpoints_bundle_needs_its_data(pipeline):
    line = refused("export", "--bundle", pipeline.bundle, "--checkpoint", pipeline.checkpoint)
    assert "--data is missing; expected the prepared data set that the checkpoint was trained on" in line


def test_requests_are_replayed(bundle, tmp_path):
    ids = [int(item) for item in Bundle.open(bundle).item_ids[:5]]
    (tmp_path / "log.jsonl").write_text(json.dumps({"behavior_item_ids": ids}) + "\n")
    assert nann("plan-shapes", "--bundle", bundle, "--requests", tmp_path / "log.jsonl").code == 0


def test_engines_are_built_as_of_any_bundle(pipeline, bundle, tmp_path):
    """Without TensorRT both end alike."""
    lines = [
        nann("build-engine", "--bundle", path, "--full-precision", "--out", tmp_path / "plans").stderr
        for path in (bundle, pipeline.bundle)
    ]
    assert lines[0] == lines[1]


def test_it_is_installed_for_serving(bundle, tmp_path):
    assert install_bundle(bundle, tmp_path / "repository").bundle_id == Bundle.open(bundle).bundle_id
