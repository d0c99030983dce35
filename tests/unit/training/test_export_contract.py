"""The contract of user encoder and scorer that docs/custom_scorer.md states, and what the export says of breaches."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from nann.bundle import Bundle
from nann.errors import ScorerError
from nann.score_agreement import TOLERANCE
from nann.training.config import SearchConfig
from nann.training.export.onnx_export import check_parity, export_to_bundle
from nann.training.scorers import OnnxScorer
from nann.training.search.index import create_bundle

pytestmark = pytest.mark.heavy

COUNT, DIM, LENGTH = 200, 4, 6
TABLE = torch.from_numpy(np.random.default_rng(0).normal(size=(COUNT, DIM)).astype(np.float32))


class MeanEncoder(nn.Module):
    def forward(self, behaviors, profile_codes):
        known = (behaviors >= 0).unsqueeze(-1)
        items = functional.embedding(behaviors.clamp(min=0), TABLE)
        return (items * known).sum(dim=1) / known.sum(dim=1).clamp(min=1)


class NanEncoder(MeanEncoder):
    def forward(self, behaviors, profile_codes):
        known = (behaviors >= 0).unsqueeze(-1)
        return (functional.embedding(behaviors.clamp(min=0), TABLE) * known).sum(dim=1) / known.sum(dim=1)


class DotScorer(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("table", TABLE.clone())

    def items(self, candidates):
        return functional.embedding(candidates.clamp(min=0), self.table)

    def forward(self, user_state, candidates):
        return (self.items(candidates) @ user_state.unsqueeze(-1)).squeeze(-1)


class SelectScorer(DotScorer):
    def items(self, candidates):
        return self.table.index_select(0, candidates.clamp(min=0).flatten()).unflatten(0, candidates.shape)


class IndexScorer(DotScorer):
    def items(self, candidates):
        return self.table[candidates.clamp(min=0)]


class NormScorer(DotScorer):
    """Batch norm in training mode uses the statistics of the batch."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(DIM)
        self.norm.running_mean.fill_(3.0)

    def forward(self, user_state, candidates):
        return super().forward(self.norm(user_state), candidates)


class RandomScorer(DotScorer):
    def forward(self, user_state, candidates):
        return functional.dropout(super().forward(user_state, candidates), 0.5, training=True)


class UnclampedScorer(DotScorer):
    def items(self, candidates):
        return functional.embedding(candidates, self.table)


class SoftmaxScorer(DotScorer):
    def forward(self, user_state, candidates):
        return super().forward(user_state, candidates).softmax(dim=-1)


class PoolingScorer(DotScorer):
    def forward(self, user_state, candidates):
        return super().forward(user_state + user_state.sum(dim=0), candidates)


class BranchingScorer(DotScorer):
    def forward(self, user_state, candidates):
        scores = super().forward(user_state, candidates)
        return scores if user_state[0, 0] > 0 else -scores.abs()


class LargeScorer(DotScorer):
    def forward(self, user_state, candidates):
        return 1000 * super().forward(user_state, candidates)


class MaskingScorer(DotScorer):
    """Item 3 is masked."""

    def forward(self, user_state, candidates):
        return super().forward(user_state, candidates).masked_fill(candidates == 3, self.mask)

    mask = -1e9


class InfinitelyMaskingScorer(MaskingScorer):
    mask = float("-inf")


class MaskingSoftmaxScorer(MaskingScorer):
    def forward(self, user_state, candidates):
        probabilities = DotScorer.forward(self, user_state, candidates).softmax(dim=-1)
        return probabilities.masked_fill(candidates % 2 == 0, self.mask)


class TupleScorer(DotScorer):
    def forward(self, user_state, candidates):
        return super().forward(user_state, candidates), candidates


class SqueezingScorer(DotScorer):
    def forward(self, user_state, candidates):
        return (self.items(candidates) @ user_state.unsqueeze(-1)).squeeze()


class Bfloat16Scorer(DotScorer):
    def forward(self, user_state, candidates):
        return super().forward(user_state, candidates).bfloat16()


class AutocastScorer(DotScorer):
    """In bfloat16 inside, which onnxruntime does not know on the CPU."""

    def forward(self, user_state, candidates):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return super().forward(user_state, candidates).float()


class HalfScorer(DotScorer):
    """In float16 inside, which onnxruntime rounds elsewhere."""

    def forward(self, user_state, candidates):
        return ((self.items(candidates).half() / 3).square() @ user_state.half().unsqueeze(-1)).squeeze(-1).float()


class NanScorer(DotScorer):
    def forward(self, user_state, candidates):
        return super().forward(user_state, candidates) / (candidates != 3)


class TupleEncoder(MeanEncoder):
    def forward(self, behaviors, profile_codes):
        return super().forward(behaviors, profile_codes), None


class LoopingScorer(DotScorer):
    def forward(self, user_state, candidates):
        return torch.stack([self.items(row) @ state for row, state in zip(candidates, user_state, strict=True)])


@pytest.fixture(scope="module")
def graph_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("contract") / "bundle"
    search = SearchConfig(top_k=5, ef=(5, 10, 20), rounds=(1, 1, 3))
    ids = np.arange(1, COUNT + 1)
    create_bundle(folder, item_ids=ids, item_vectors=TABLE.numpy(), sequence_length=LENGTH, search=search, threads=1)
    return folder


@pytest.fixture
def bundle_to_fill(graph_folder, tmp_path) -> Bundle:
    shutil.copytree(graph_folder, tmp_path / "bundle")
    return Bundle.open(tmp_path / "bundle")


@pytest.mark.parametrize("scorer", [LargeScorer, MaskingScorer, InfinitelyMaskingScorer])
def test_neither_scale_nor_masks_stop_an_export(bundle_to_fill, scorer):
    assert export_to_bundle(bundle_to_fill, MeanEncoder(), scorer()).max_difference <= TOLERANCE


@pytest.mark.parametrize("wrapped", [torch.compile, nn.DataParallel])
def test_wrapped_modules_are_exported_as_the_modules_inside(bundle_to_fill, wrapped):
    assert export_to_bundle(bundle_to_fill, wrapped(MeanEncoder()), wrapped(DotScorer())).user_state_width == DIM


def test_an_export_whose_scores_have_the_wrong_sign_is_refused(bundle_to_fill, tmp_path):
    """Whatever the scale, and with one masked item."""
    for number, scorer in enumerate((DotScorer(), MaskingScorer(), LargeScorer())):
        export_to_bundle(bundle_to_fill, MeanEncoder(), scorer)
        paths = (bundle_to_fill.path / name for name in ("user_encoder.onnx", "scorer.onnx"))
        encoder, exported = (shutil.copy(path, tmp_path / f"{number}.{path.name}") for path in paths)
        scorer.table.neg_()
        with pytest.raises(ScorerError, match=r"onnxruntime differs from torch by .* of a score, and .* not faithful"):
            check_parity(bundle_to_fill, MeanEncoder(), scorer.eval(), encoder, exported)


@pytest.mark.parametrize("scorer", [SelectScorer, NormScorer])
def test_what_the_contract_allows(bundle_to_fill, scorer):
    module = scorer().train()
    assert export_to_bundle(bundle_to_fill, MeanEncoder(), module).user_state_width == DIM
    states, candidates = torch.ones(1, DIM), torch.tensor([[3, -1, 7]], dtype=torch.int32)
    served = OnnxScorer(bundle_to_fill.path / "scorer.onnx").score(states.numpy(), candidates.numpy())
    expected = module.eval()(states, candidates).detach().numpy()
    np.testing.assert_allclose(served[:, [0, 2]], expected[:, [0, 2]], rtol=1e-5)


@pytest.mark.parametrize(
    ("encoder", "scorer", "message"),
    [
        (MeanEncoder, IndexScorer, r"onnxruntime refuses .*tensor\(int32\).*GatherND.* is invalid"),
        (MeanEncoder, UnclampedScorer, r"a candidate is -1 \(padding\): IndexError: .*; clamp candidates"),
        (MeanEncoder, SoftmaxScorer, "the score of a candidate changes by .* with the other candidates"),
        (MeanEncoder, MaskingSoftmaxScorer, "the score of a candidate changes by .* with the other candidates"),
        (MeanEncoder, TupleScorer, r"the scorer returns tuple for candidates \[2, 3\]; expected one tensor, float32"),
        (TupleEncoder, DotScorer, r"the user encoder returns tuple for 2 users; expected one tensor, float32\[2, S\]"),
        (MeanEncoder, SqueezingScorer, r"gives torch.float32\[\] for candidates \[1, 1\]; .*not .squeeze\(\)"),
        (MeanEncoder, Bfloat16Scorer, r"gives torch.bfloat16\[2, 3\] .*expected float32\[2, 3\]: call .float\(\)"),
        (MeanEncoder, AutocastScorer, "onnxruntime refuses .*; the scorer computes in half precision inside: call"),
        (MeanEncoder, HalfScorer, "differs from torch .*; the scorer computes in half precision inside: call"),
        (MeanEncoder, NanScorer, "NaN in torch: not the export's doing"),
        (MeanEncoder, PoolingScorer, "the score of a candidate changes by .* with the other candidates"),
        (MeanEncoder, BranchingScorer, "scorer can't be exported to ONNX: .*data-dependent expression"),
        (MeanEncoder, LoopingScorer, "at 1 users x 1 candidates the exported files fail: .*any number of"),
        (MeanEncoder, RandomScorer, "the score of a candidate changes by"),
        (NanEncoder, DotScorer, "the user encoder gives NaN in torch for a user without behaviours: not the export"),
    ],
)
def test_what_the_contract_forbids(bundle_to_fill, encoder, scorer, message):
    with pytest.raises(ScorerError, match=message):
        export_to_bundle(bundle_to_fill, encoder(), scorer())
    assert not list(bundle_to_fill.path.glob("*.onnx"))
