from __future__ import annotations

import shutil

import numpy as np
import onnx
import pytest
import torch
from support.bundles import without_light

from nann.bundle import Bundle
from nann.errors import BundleError, ScorerError
from nann.signature import SCORER
from nann.training.export.half_precision import export_half
from nann.training.export.onnx_export import export_to_bundle
from nann.training.scorers import OnnxScorer

pytestmark = pytest.mark.heavy


def test_weights_and_arithmetic_are_half_and_the_signature_is_not(half_bundle):
    graph = onnx.load(half_bundle / "scorer.fp16.onnx").graph
    kinds = {tensor.data_type for tensor in graph.initializer if len(tensor.dims) > 1}
    assert kinds == {onnx.TensorProto.FLOAT16}
    inferred = onnx.shape_inference.infer_shapes(onnx.load(half_bundle / "scorer.fp16.onnx")).graph
    kind_of = {value.name: value.type.tensor_type.elem_type for value in inferred.value_info}
    products = [node for node in graph.node if node.op_type == "MatMul"]
    assert products
    assert {kind_of[node.output[0]] for node in products} == {onnx.TensorProto.FLOAT16}
    for value, tensor in zip((*graph.input, *graph.output), (*SCORER.inputs, *SCORER.outputs), strict=True):
        assert value.name == tensor.name
        assert onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type) == tensor.dtype


def test_the_bundle_says_how_far_it_is_from_full_precision(half_bundle, exported_bundle):
    bundle = Bundle.open(half_bundle)
    report = bundle.notes["half_precision"]
    assert 0 < report["max_difference"] < 1e-1
    assert report["coverage"] >= 0.95
    assert report["top_k"] == 10
    half, full = (half_bundle / name for name in ("scorer.fp16.onnx", "scorer.onnx"))
    assert report["scorer_bytes"] == half.stat().st_size < full.stat().st_size
    assert bundle.bundle_id != Bundle.open(exported_bundle).bundle_id


def test_an_empty_history_gives_numbers(half_bundle):
    """Its attention mask is -1e9 everywhere, which is -inf in half precision."""
    bundle = Bundle.open(half_bundle)
    from nann.training.scorers import OnnxUserEncoder

    states = OnnxUserEncoder(half_bundle / "user_encoder.onnx").encode(
        np.full((1, bundle.sequence_length), -1, np.int32), np.zeros((1, bundle.profile_width), np.int32)
    )
    assert states.min() < -1e8
    candidates = np.arange(bundle.item_count, dtype=np.int32)[None]
    half, full = (OnnxScorer(half_bundle / name) for name in ("scorer.fp16.onnx", "scorer.onnx"))
    np.testing.assert_allclose(half.score(states, candidates), full.score(states, candidates), atol=1e-2)


def test_another_export_drops_what_was_made_of_the_last(half_bundle, tmp_path):
    bundle = without_light(shutil.copytree(half_bundle, tmp_path / "bundle"))
    export_to_bundle(bundle, _Encoder(), _Dot(bundle.item_count, 1.0))
    again = Bundle.open(bundle.path)
    assert "scorer.fp16.onnx" not in again.manifest["files"]
    assert not (bundle.path / "scorer.fp16.onnx").exists()


class _Encoder(torch.nn.Module):
    def forward(self, behaviors, profile_codes):
        return (behaviors >= 0).float() + profile_codes.sum(dim=1, keepdim=True) * 0.1


class _Dot(torch.nn.Module):
    """A product with a table; with a large `offset` that cancels, half precision has no digits left for the rest."""

    def __init__(self, items, offset):
        super().__init__()
        table = torch.randn(items, 8, generator=torch.Generator().manual_seed(0)) + offset
        self.register_buffer("table", table)
        self.register_buffer("offset", torch.tensor(float(offset)))

    def forward(self, user_state, candidates):
        vectors = torch.nn.functional.embedding(candidates.clamp(min=0), self.table)
        return ((vectors - self.offset) * user_state[:, None]).sum(-1)


def test_a_scorer_that_needs_full_precision_is_refused_and_nothing_is_written(exported_bundle, tmp_path):
    bundle = without_light(shutil.copytree(exported_bundle, tmp_path / "bundle"))
    export_to_bundle(bundle, _Encoder(), _Dot(bundle.item_count, 1000.0))
    before = {path.name for path in bundle.path.iterdir()}
    with pytest.raises(ScorerError, match=r"half precision differs by .*; expected at most 1e-01: .* without --half"):
        export_half(Bundle.open(bundle.path))
    assert {path.name for path in bundle.path.iterdir()} == before
    assert "half_precision" not in bundle.notes


def test_a_ranking_that_changes_is_refused(exported_bundle, tmp_path, monkeypatch):
    monkeypatch.setattr("nann.training.export.half_precision.HALF_COVERAGE", 1.01)
    with pytest.raises(ScorerError, match=r"keeps .*% of the exact top 10; expected at least 101%"):
        export_half(Bundle.open(shutil.copytree(exported_bundle, tmp_path / "bundle")))


def test_a_bundle_that_was_not_exported(exported_bundle, tmp_path):
    bundle = Bundle.open(shutil.copytree(exported_bundle, tmp_path / "bundle"))
    files = {name: entry for name, entry in bundle.manifest["files"].items() if not name.endswith(".onnx")}
    with pytest.raises(BundleError, match="run `nann export`"):
        export_half(Bundle(bundle.path, {**bundle.manifest, "files": files}))
