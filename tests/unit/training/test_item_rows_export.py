"""Scorers that get the rows of their candidates: as good as those with a table, and the same for every corpus."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from examples.custom_scorer.model import InterestEncoder, InterestScorer
from nann._kernels import has_bf16
from nann.beam_search import beam_search
from nann.bundle import ITEM_ROWS_FILE, Bundle, sha256_of
from nann.errors import DataError, ScorerError
from nann.exact_search import exact_search
from nann.item_rows import ItemRows
from nann.native_scorer import NativeScorer, native_refusal
from nann.plans import Plans
from nann.search_input import UserBatch
from nann.shape_grid import ShapeGrid
from nann.training.checkpoint import Checkpoint
from nann.training.config import SearchConfig, TrainingConfig
from nann.training.export.engine import EngineOptions, build_plans, fitting_plans
from nann.training.export.half_precision import export_half
from nann.training.export.onnx_export import PARITY_SHAPES, export_to_bundle
from nann.training.export.serving_modules import row_modules, serving_modules
from nann.training.scorers import GatheringScorer, OnnxScorer, OnnxUserEncoder, TorchScorer
from nann.training.search.index import create_bundle
from nann.training.search.pipeline import export_checkpoint, index_checkpoint
from nann.training.search.shape_plan import data_requests, plan_shapes
from nann.training.train import train

pytestmark = pytest.mark.heavy

KERNEL = {"sequence_length": 8, "item_layers": [12], "architecture": "kernel"}
FORMS = {
    "attention": {"architecture": "attention", "profile": {}},
    "no attention": {"architecture": "no_attention"},
    "two-sided": {"architecture": "two_sided"},
    "kernel": {**KERNEL, "kernel": {"heads": 3, "repeats": True, "attended": 4}},
    "kernel, heads": {**KERNEL, "kernel": {"heads": 2, "repeats": False, "attended": 4}},
    "kernel, repeats": {**KERNEL, "kernel": {"heads": 0, "repeats": True}},
}


def checkpoint_of(data, config: TrainingConfig, folder, shape) -> Checkpoint:
    body = config.model_dump()
    if shape["architecture"] == "kernel":
        body |= {"model": shape, "start": {"steps": 2}, "optimization": {"steps": 2, "batch_size": 32}}
        body["loss"] = {"negatives": 16, "auxiliary": {"reading": "none"}}
    else:
        body["model"] |= shape
    return Checkpoint.load(
        train(data, TrainingConfig.model_validate(body), folder / "train", stop_at_step=2).checkpoint
    )


def assert_native_form(bundle: Bundle, states, items, expected) -> None:
    """The native form of a bundle's scorer gives its scores, as far as this CPU can run it."""
    if native_refusal(bundle.manifest) is None:
        own = NativeScorer.open(bundle.path, bundle.manifest, 2).score(states, items, bundle.item_rows)
        np.testing.assert_allclose(own, expected, rtol=0, atol=0.02 * np.abs(expected).max())
    else:
        assert not has_bf16()


@pytest.mark.parametrize("form", FORMS)
def test_both_forms_score_and_search_alike(data, config, tmp_path, form):
    checkpoint = checkpoint_of(data, config, tmp_path, FORMS[form])
    bundle = index_checkpoint(checkpoint, data, tmp_path / "table", threads=1)
    copy = Bundle.open(shutil.copytree(bundle.path, tmp_path / "rows"))
    export_checkpoint(checkpoint, data, bundle)
    report = export_checkpoint(checkpoint, data, copy, item_rows=True)
    assert report.shapes_checked == len(PARITY_SHAPES)
    table, rows = Bundle.open(bundle.path), Bundle.open(copy.path)
    assert (table.item_row_width, table.item_rows) == (0, None)
    assert rows.item_rows.base.shape == (data.item_count, report.item_row_width)
    queries = data.queries("test", 8)
    states = OnnxUserEncoder(rows.path / "user_encoder.onnx").encode(queries.behaviors, queries.profiles)
    scorers = [OnnxScorer.of_bundle(one, 1) for one in (table, rows)]
    # Own items among the candidates: repeats count.
    items = np.concatenate([queries.behaviors, np.tile(np.arange(-1, 200, dtype=np.int32), (len(states), 1))], axis=1)
    expected, got = (np.where(items < 0, 0, scorer.score(states, items)) for scorer in scorers)
    np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-6 * np.abs(expected).max())
    for one in (table, rows):
        assert_native_form(one, states, items, expected)
    users = UserBatch(states, queries.behaviors)
    searched = [beam_search(table.index, scorer, users, table.search_params).items for scorer in scorers]
    np.testing.assert_array_equal(*searched)
    exact = [exact_search(scorer, users, data.item_count, 10, chunk=70).items for scorer in scorers]
    np.testing.assert_array_equal(*exact)


@pytest.mark.parametrize("form", ["attention", "kernel"])
def test_the_scorer_does_not_know_the_corpus(data, config, tmp_path, form):
    """Items in another order: another user encoder, other rows, and the same scorer to the last byte."""
    checkpoint = checkpoint_of(data, config, tmp_path, FORMS[form])
    model, order = checkpoint.restore(data), np.random.default_rng(0).permutation(data.item_count)
    bundle = index_checkpoint(checkpoint, data, tmp_path / "one", threads=1)
    other = Bundle.open(shutil.copytree(bundle.path, tmp_path / "two"))
    encoder, scorer, item_rows = row_modules(model)
    export_to_bundle(bundle, encoder, scorer, item_rows)
    _, again, _ = row_modules(model)
    export_to_bundle(other, encoder, again, item_rows[order])
    assert sha256_of(bundle.path / "scorer.onnx") == sha256_of(other.path / "scorer.onnx")
    assert not list(other.path.glob("scorer.onnx.*"))


# A scorer of one's own


COUNT, DIM, LENGTH = 200, 4, 6
TABLE = np.random.default_rng(0).normal(size=(COUNT, DIM)).astype(np.float32)


class MeanEncoder(nn.Module):
    def __init__(self, table: np.ndarray) -> None:
        super().__init__()
        self.register_buffer("table", torch.from_numpy(table))

    def forward(self, behaviors, profile_codes):
        known = (behaviors >= 0).unsqueeze(-1)
        items = functional.embedding(behaviors.clamp(min=0), self.table)
        return (items * known).sum(dim=1) / known.sum(dim=1).clamp(min=1)


class RowDot(nn.Module):
    """A layer on each row, so that half precision has matrix products, and the inner product with the user."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(DIM, DIM)
        nn.init.eye_(self.layer.weight)
        nn.init.zeros_(self.layer.bias)

    def forward(self, user_state, candidate_rows):
        return (self.layer(candidate_rows) @ user_state.unsqueeze(-1)).squeeze(-1)


class TableDot(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("table", torch.from_numpy(TABLE))

    def forward(self, user_state, candidates):
        items = functional.embedding(candidates.clamp(min=0), self.table)
        return (items @ user_state.unsqueeze(-1)).squeeze(-1)


class PoolingDot(RowDot):
    def forward(self, user_state, candidate_rows):
        return super().forward(user_state, candidate_rows).softmax(dim=1)


def bundle_of(path, table=TABLE) -> Bundle:
    search = SearchConfig(top_k=5, ef=(5, 10, 20), rounds=(1, 1, 3))
    ids = np.arange(1, len(table) + 1)
    return create_bundle(path, item_ids=ids, item_vectors=table, sequence_length=LENGTH, search=search, threads=1)


def test_a_scorer_of_ones_own_may_take_rows(tmp_path):
    bundle = bundle_of(tmp_path / "bundle")
    report = export_to_bundle(bundle, MeanEncoder(TABLE), RowDot(), TABLE)
    assert (report.user_state_width, report.item_row_width) == (DIM, DIM)
    opened = Bundle.open(bundle.path)
    np.testing.assert_array_equal(opened.item_rows.base, TABLE)
    states = np.random.default_rng(1).normal(size=(3, DIM)).astype(np.float32)
    items = np.random.default_rng(2).integers(-1, COUNT, (3, 50)).astype(np.int32)
    expected = np.einsum("bd,bcd->bc", states, TABLE[items])
    for scorer in (OnnxScorer.of_bundle(opened), TorchScorer(GatheringScorer(RowDot(), opened.item_rows))):
        scores = scorer.score(states, items)
        np.testing.assert_allclose(scores[items >= 0], expected[items >= 0], rtol=1e-4, atol=1e-5)


def test_an_export_with_a_table_removes_the_rows(tmp_path):
    bundle = bundle_of(tmp_path / "bundle")
    export_to_bundle(bundle, MeanEncoder(TABLE), RowDot(), TABLE)
    export_to_bundle(Bundle.open(bundle.path), MeanEncoder(TABLE), TableDot())
    opened = Bundle.open(bundle.path)
    assert opened.item_rows is None
    assert not (opened.path / ITEM_ROWS_FILE).exists()


@pytest.mark.parametrize(
    ("scorer", "rows", "error", "message"),
    [
        (RowDot, TABLE[1:], DataError, r"item_rows has shape \[199, 4\]; expected \[200, any\], a row per item"),
        (RowDot, TABLE[:, 0], DataError, r"item_rows has shape \[200\]; expected \[200, any\]"),
        (RowDot, np.full_like(TABLE, np.nan), DataError, "item_rows holds NaN or infinity, for item index 0 first"),
        (RowDot, TABLE[:, :3], ScorerError, "the modules fail .*; expected a scorer of candidate_rows, float32"),
        (TableDot, TABLE, ScorerError, r"the modules fail .*; expected a scorer of candidate_rows, float32\[B, C, 4\]"),
        (PoolingDot, TABLE, ScorerError, "the score of a candidate changes by .* with the other candidates"),
    ],
)
def test_what_is_no_scorer_of_these_rows(tmp_path, scorer, rows, error, message):
    bundle = bundle_of(tmp_path / "bundle")
    with pytest.raises(error, match=message):
        export_to_bundle(bundle, MeanEncoder(TABLE), scorer(), rows)
    assert not list(bundle.path.glob("*.onnx"))
    assert not (bundle.path / ITEM_ROWS_FILE).exists()


class RowInterests(nn.Module):
    """The scorer of examples/custom_scorer without its item table."""

    def __init__(self, scorer: InterestScorer) -> None:
        super().__init__()
        self.sharpness, self.mlp, self.interests = scorer.sharpness, scorer.mlp, scorer.interests

    forward = InterestScorer.score


def test_the_examples_scorer_with_item_rows(tmp_path):
    torch.manual_seed(0)
    items = nn.Embedding.from_pretrained(torch.from_numpy(TABLE))
    encoder, scorer = InterestEncoder(items, 3), InterestScorer(items, 3, hidden=8)
    bundles = [bundle_of(tmp_path / name) for name in ("table", "rows")]
    export_to_bundle(bundles[0], encoder, scorer)
    export_to_bundle(bundles[1], encoder, RowInterests(scorer), TABLE)
    table, rows = (OnnxScorer.of_bundle(Bundle.open(bundle.path)) for bundle in bundles)
    behaviors = np.random.default_rng(1).integers(COUNT, size=(4, LENGTH)).astype(np.int32)
    states = OnnxUserEncoder(bundles[1].path / "user_encoder.onnx").encode(behaviors, np.zeros((4, 1), np.int32))
    every = np.tile(np.arange(COUNT, dtype=np.int32), (4, 1))
    np.testing.assert_allclose(rows.score(states, every), table.score(states, every), rtol=1e-6)


# On a GPU


GRID = ShapeGrid((1, 16), (64, 128))
HERE = EngineOptions(compute_capabilities=("8.6",), optimization_level=0)


def test_one_plan_of_the_scorer_fits_every_corpus(tmp_path):
    """TensorRT for RTX builds without a GPU; the second bundle has half of the items, in another order."""
    pytest.importorskip("tensorrt_rtx")
    half, bundles = np.random.default_rng(3).permutation(COUNT)[: COUNT // 2], []
    scorer = RowDot()
    for name, table in (("all", TABLE), ("half", TABLE[half])):
        bundle = bundle_of(tmp_path / name, table)
        export_to_bundle(bundle, MeanEncoder(table), scorer, table)
        assert export_half(Bundle.open(bundle.path)).coverage > 0.9
        opened = Bundle.open(bundle.path)
        bundles.append(Bundle.open(opened.change(shape_grid=GRID.to_manifest()).path))
    one, two = bundles
    for file in ("scorer.onnx", "scorer.fp16.onnx"):
        assert sha256_of(one.path / file) == sha256_of(two.path / file)
    plans = build_plans(one, tmp_path / "plans", HERE)
    before = sha256_of(plans.path / "scorer.plan")
    assert b"candidate_rows" in (plans.path / "scorer.plan").read_bytes()
    (first, _) = plans.manifest["plans"]["scorer"]["profiles"]
    assert first == {"user_state": [[DIM], [DIM]], "candidate_rows": [[1, DIM], [64, DIM]]}
    assert fitting_plans(two, plans.path, HERE).keys() == {"scorer"}
    kept = build_plans(two, plans.path, HERE, keep=True)
    assert sha256_of(kept.path / "scorer.plan") == before
    assert kept.manifest["plans"]["scorer"] == plans.manifest["plans"]["scorer"]
    assert kept.manifest["plans"]["user_encoder"] != plans.manifest["plans"]["user_encoder"]
    assert Plans.open(plans.path, two).manifest["bundle_id"] == two.bundle_id


@pytest.mark.parametrize("form", ["attention", "kernel"])
def test_half_precision_and_planned_shapes(data, config, tmp_path, form):
    trt = pytest.importorskip("tensorrt_rtx")
    assert trt
    checkpoint = checkpoint_of(data, config, tmp_path, FORMS[form])
    bundle = index_checkpoint(checkpoint, data, tmp_path / "bundle", threads=1)
    export_checkpoint(checkpoint, data, bundle, item_rows=True)
    assert export_half(Bundle.open(bundle.path)).coverage > 0.9
    opened = Bundle.open(bundle.path)
    plan_shapes(opened, data_requests(data, opened, 5), 2)
    opened = Bundle.open(bundle.path)
    warmup = np.load(opened.path / "warmup.candidate_rows.npy")
    assert warmup.shape[1] == opened.item_row_width
    assert (warmup[0] == opened.item_rows.base).all(axis=1).any()
    assert not (opened.path / "warmup.candidates.npy").exists()
    entry = build_plans(opened, tmp_path / "plans", HERE).manifest["plans"]["scorer"]
    assert entry["inspection"]["network"]["HALF"] > 5


def test_rows_of_new_items_are_scored_too(data, config, tmp_path):
    checkpoint = checkpoint_of(data, config, tmp_path, FORMS["kernel"])
    model = checkpoint.restore(data)
    encoder, scorer, item_rows = row_modules(model)
    held = ItemRows(item_rows[:-7].copy(), item_rows[-7:].copy())
    behaviors = torch.randint(data.item_count, (2, 8), dtype=torch.int32)
    candidates = torch.arange(data.item_count - 20, data.item_count, dtype=torch.int32).expand(2, -1)
    with torch.inference_mode():
        state = encoder(behaviors, torch.zeros(2, 2, dtype=torch.int32))
        table_encoder, table = serving_modules(model)
        expected = table(table_encoder(behaviors, torch.zeros(2, 2, dtype=torch.int32)), candidates)
        got = GatheringScorer(scorer, held)(state, candidates)
    torch.testing.assert_close(got, expected, rtol=1e-6, atol=1e-6)
