"""Every form of the kernel scorer from training to a searched bundle."""

from __future__ import annotations

import pytest

from nann.bundle import Bundle
from nann.training.checkpoint import Checkpoint
from nann.training.config import TrainingConfig
from nann.training.export.half_precision import export_half
from nann.training.search.evaluate import evaluate_bundle
from nann.training.search.pipeline import export_checkpoint, index_checkpoint
from nann.training.train import train

pytestmark = pytest.mark.heavy


@pytest.mark.parametrize(("heads", "repeats"), [(3, True), (3, False), (0, True), (0, False)])
def test_the_exported_scorer_is_searched(data, config, tmp_path, heads, repeats):
    kernel = {"heads": heads, "repeats": repeats, "attended": 4}
    shape = {"architecture": "kernel", "sequence_length": 8, "item_layers": [12], "kernel": kernel}
    steps = {"steps": 2, "batch_size": 32}
    body = {**config.model_dump(), "model": shape, "start": {"steps": 2}, "optimization": steps}
    settings = TrainingConfig.model_validate({**body, "loss": {"negatives": 16, "auxiliary": {"reading": "none"}}})
    checkpoint = Checkpoint.load(train(data, settings, tmp_path / "train").checkpoint)
    bundle = index_checkpoint(checkpoint, data, tmp_path / "bundle", threads=1)
    assert (bundle.light_vectors is not None) == bool(heads or repeats)
    export_checkpoint(checkpoint, data, bundle)  # compares the scores of onnxruntime with torch's
    found = evaluate_bundle(Bundle.open(bundle.path), data, users=10)
    assert found.coverage > 0.5
    assert export_half(Bundle.open(bundle.path)).coverage > 0.9
