"""Training on two nodes that share no disk: the weights of two processes of one node."""

from __future__ import annotations

import pytest
import torch
from support.torchrun import two_nodes, two_processes

from nann.training.checkpoint import Checkpoint

pytestmark = [pytest.mark.heavy, pytest.mark.slow]


def test_two_nodes_give_the_weights_of_one(data_folder, config, tmp_path):
    def script(out: str) -> str:
        return (
            "import os\n"
            "from pathlib import Path\n"
            "from nann.training.config import TrainingConfig\n"
            "from nann.training.data.prepared import PreparedData\n"
            "from nann.training.train import train\n"
            f"config = TrainingConfig.model_validate({config.model_dump()!r})\n"
            f"report = train(PreparedData.load({str(data_folder)!r}), config, Path({str(tmp_path)!r}) / {out})\n"
            "print('EXAMPLES', report.examples)\n"
        )

    two_processes(tmp_path / "one.py", script("'one'"))
    printed = two_nodes(tmp_path / "two.py", script("('node' + os.environ['NODE'])"))
    examples = 2 * config.optimization.steps * config.optimization.batch_size
    assert [words.count(f"EXAMPLES {examples}") for words in printed] == [1, 1]
    expected, got = (Checkpoint.load(tmp_path / name / "checkpoint.pt").model for name in ("one", "node0"))
    assert expected.keys() == got.keys()
    for name, tensor in expected.items():
        assert torch.equal(got[name], tensor), name
    assert not (tmp_path / "node1" / "checkpoint.pt").exists(), "one process writes"
