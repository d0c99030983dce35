"""The export of a scorer to ONNX: its scores, its files, and modules that break the contract."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from support.bundles import without_light

from nann.bundle import Bundle
from nann.errors import BundleError, ScorerError
from nann.native_scorer import NativeScorer, native_refusal
from nann.signature import SCORER, USER_ENCODER
from nann.training.checkpoint import Checkpoint
from nann.training.config import ModelConfig
from nann.training.export import onnx_file
from nann.training.export.onnx_export import PARITY_SHAPES, export_to_bundle
from nann.training.export.serving_modules import serving_modules
from nann.training.scorers import OnnxScorer, OnnxUserEncoder, TorchScorer, encode_users_torch
from nann.training.search.pipeline import export_checkpoint, index_checkpoint
from nann.training.train import train

pytestmark = pytest.mark.heavy


@pytest.fixture(scope="module")
def exported(exported_bundle):
    return Bundle.open(exported_bundle)


@pytest.fixture
def indexed(data, trained, tmp_path):
    return index_checkpoint(trained, data, tmp_path / "bundle", threads=1)


@pytest.fixture
def bare(indexed):
    return without_light(indexed.path)


@pytest.mark.parametrize("architecture", ["attention", "no_attention", "two_sided"])
def test_exported_scores_are_torchs(data, config, tmp_path, architecture):
    model = ModelConfig.model_validate({**config.model.model_dump(), "architecture": architecture, "profile": {}})
    trained = train(data, config.model_copy(update={"model": model}), tmp_path / "train", stop_at_step=5)
    checkpoint = Checkpoint.load(trained.checkpoint)
    bundle = index_checkpoint(checkpoint, data, tmp_path / "bundle", threads=1)
    report = export_checkpoint(checkpoint, data, bundle)
    assert report.max_difference < 1e-4
    assert report.shapes_checked == len(PARITY_SHAPES)
    opened = Bundle.open(tmp_path / "bundle")
    assert [field["name"] for field in opened.manifest["profile_fields"]] == ["age", "sex"]
    # Users of the data set, and shapes that the export did not try itself.
    queries = data.queries("test", 8)
    user_encoder, scorer = serving_modules(checkpoint.restore(data))
    states = encode_users_torch(user_encoder, queries.behaviors, queries.profiles)
    onnx_states = OnnxUserEncoder(opened.path / "user_encoder.onnx").encode(queries.behaviors, queries.profiles)
    np.testing.assert_allclose(onnx_states, states, atol=1e-4)
    candidates = np.tile(np.arange(-1, 36, dtype=np.int32), (len(states), 1))
    expected = TorchScorer(scorer).score(states, candidates)
    got = OnnxScorer(opened.path / "scorer.onnx").score(onnx_states, candidates)
    np.testing.assert_allclose(got[:, 1:], expected[:, 1:], atol=1e-4)


class Dropped(torch.nn.Module):
    """Half of the scores are 0 while it trains."""

    def forward(self, states, candidates):
        return torch.nn.functional.dropout(torch.ones(candidates.shape), 0.5, self.training)


def test_modules_left_in_training_are_scored_without_dropout():
    candidates = np.zeros((2, 50), np.int32)
    assert (TorchScorer(Dropped().train()).score(np.zeros((2, 3), np.float32), candidates) == 1).all()
    assert (encode_users_torch(Dropped().train(), candidates, candidates) == 1).all()


def test_a_graph_and_a_scorer_of_different_weights_are_refused(data, config, indexed, tmp_path):
    other = Checkpoint.load(train(data, config, tmp_path / "other", stop_at_step=2).checkpoint)
    with pytest.raises(BundleError, match="indexed from another checkpoint"):
        export_checkpoint(other, data, indexed)


class Encoder(torch.nn.Module):
    def forward(self, behaviors, profile_codes):
        return (behaviors >= 0).float() + profile_codes.sum(dim=1, keepdim=True) * 0.1


class Dot(torch.nn.Module):
    def __init__(self, items, width):
        super().__init__()
        self.register_buffer("table", torch.randn(items, width, generator=torch.Generator().manual_seed(0)))

    def forward(self, user_state, candidates):
        vectors = torch.nn.functional.embedding(candidates.clamp(min=0), self.table)
        return (vectors * user_state[:, None]).sum(-1)


class ChangedInExport(Dot):
    """Gives other scores when exported than when run, as a module with a training-only branch might."""

    def forward(self, user_state, candidates):
        return super().forward(user_state, candidates) + (1.0 if torch.compiler.is_exporting() else 0.0)


class WrongShape(Dot):
    def forward(self, user_state, candidates):
        return super().forward(user_state, candidates)[:, :, None]


class WrongState(Encoder):
    def forward(self, behaviors, profile_codes):
        return super().forward(behaviors, profile_codes)[:, None]


def test_custom_modules_can_be_exported(bare):
    report = export_to_bundle(bare, Encoder(), Dot(300, 8))
    assert report.user_state_width == 8
    assert set(Bundle.open(bare.path).search_by_entry) == {"layers"}


class WithLight(Encoder):
    def __init__(self, light):
        super().__init__()
        self.light = light

    def forward(self, behaviors, profile_codes):
        state = super().forward(behaviors, profile_codes)
        return torch.cat([state, self.light(state)], dim=1)


class ReadsStart(Dot):
    def forward(self, user_state, candidates):
        return super().forward(user_state[:, :8], candidates)


def test_custom_modules_can_have_a_light_score(indexed):
    encoder = WithLight(lambda state: state.repeat(1, 8))
    assert export_to_bundle(indexed, encoder, ReadsStart(300, 8)).user_state_width == 72
    opened = Bundle.open(indexed.path)
    assert opened.light_vectors.shape == (opened.item_count, 64)
    assert {entry: params.entry for entry, params in opened.search_by_entry.items()} == {
        "layers": "layers",
        "seeds": "seeds",
    }


def drifting(state):
    return state.repeat(1, 8) + (1.0 if torch.compiler.is_exporting() else 0.0)


@pytest.mark.parametrize(
    ("encoder", "message"),
    [
        (
            Encoder(),
            r"the user encoder gives \[2, 8\]; expected at least 64 columns, of which the last 64 are the user",
        ),
        (WithLight(lambda state: state.repeat(1, 8) + torch.inf), "light part holds NaN or infinity"),
        (WithLight(drifting), "onnxruntime differs from torch"),
    ],
)
def test_a_light_score_that_breaks_the_contract_is_refused(indexed, encoder, message):
    with pytest.raises(ScorerError, match=message):
        export_to_bundle(indexed, encoder, ReadsStart(300, 8))


@pytest.mark.parametrize(
    ("encoder", "scorer", "message"),
    [
        (Encoder(), ChangedInExport(300, 8), "onnxruntime differs from torch"),
        (Encoder(), WrongShape(300, 8), r"the scorer gives torch.float32\[2, 3, 1\]"),
        (Encoder(), Dot(3, 8), "the modules fail on item indices 0 to 299: IndexError"),
        (WrongState(), Dot(300, 8), r"the user encoder gives torch.float32\[2, 1, 8\]"),
    ],
)
def test_modules_that_break_the_contract_are_refused_and_nothing_is_written(bare, encoder, scorer, message):
    before = sorted(path.name for path in bare.path.iterdir())
    with pytest.raises(ScorerError, match=message):
        export_to_bundle(bare, encoder, scorer)
    assert sorted(path.name for path in bare.path.iterdir()) == before


@pytest.mark.parametrize("name", ["user_encoder.onnx", "scorer.onnx"])
def test_the_onnx_files_name_no_path_of_the_exporting_machine(exported, name):
    assert not any(node.metadata_props for node in onnx.load(exported.path / name).graph.node)
    assert b".py" not in (exported.path / name).read_bytes()


@pytest.mark.parametrize("spec", [SCORER, USER_ENCODER], ids=lambda spec: spec.name)
def test_the_onnx_files_declare_the_signature(exported, spec):
    """Triton's ONNX Runtime backend needs all inputs, even one that the module ignores, and all dimensions free."""
    graph = onnx.load(exported.path / f"{spec.name}.onnx").graph
    declared = {value.name: value.type.tensor_type for value in (*graph.input, *graph.output)}
    assert set(declared) == {tensor.name for tensor in (*spec.inputs, *spec.outputs)}
    for tensor in (*spec.inputs, *spec.outputs):
        assert onnx.helper.tensor_dtype_to_np_dtype(declared[tensor.name].elem_type) == tensor.dtype
        symbols = [dimension.dim_param for dimension in declared[tensor.name].shape.dim]
        assert symbols[0] == "B"
        assert symbols[1]


def test_large_tables_get_their_own_file_that_the_next_export_replaces(data, trained, indexed, monkeypatch):
    export_checkpoint(trained, data, indexed)
    candidates = np.tile(np.arange(37, dtype=np.int32), (20, 1))
    queries = data.queries("test", 8)

    def scores():
        opened = Bundle.open(indexed.path)
        states = OnnxUserEncoder(opened.path / "user_encoder.onnx").encode(queries.behaviors, queries.profiles)
        return OnnxScorer(opened.path / "scorer.onnx").score(states, candidates)

    inline, files = scores(), set(Bundle.open(indexed.path).manifest["files"])
    monkeypatch.setattr(onnx_file, "_EXTERNAL_BYTES", 1024)
    report = export_checkpoint(trained, data, Bundle.open(indexed.path))
    beside = {"user_encoder.onnx.data", "scorer.onnx.data"}
    assert set(Bundle.open(indexed.path).manifest["files"]) == files | beside
    sizes = {name: (indexed.path / name).stat().st_size for name in ("scorer.onnx", "scorer.onnx.data")}
    assert sizes["scorer.onnx.data"] > 1024
    assert report.scorer_bytes == sum(sizes.values())
    assert (indexed.path / "scorer.onnx.data").stat().st_mode == (indexed.path / "scorer.onnx").stat().st_mode
    np.testing.assert_array_equal(scores(), inline)
    if native_refusal(Bundle.open(indexed.path).manifest) is None:  # maps the table there
        opened = Bundle.open(indexed.path)
        states = OnnxUserEncoder(opened.path / "user_encoder.onnx").encode(queries.behaviors, queries.profiles)
        native = NativeScorer.open(opened.path, opened.manifest).score(states, candidates)
        np.testing.assert_allclose(native, inline, rtol=0, atol=0.02 * np.abs(inline).max())
    monkeypatch.undo()
    export_checkpoint(trained, data, Bundle.open(indexed.path))
    assert set(Bundle.open(indexed.path).manifest["files"]) == files
    assert not any((indexed.path / name).exists() for name in beside)
