"""Common user encoders and scorers: torch, onnxruntime and the target `torch` give the same from one exported file."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim
from torch.nn import functional

from nann.python_backend.engines.onnx_torch import OnnxTorchModule
from nann.signature import SCORER, USER_ENCODER
from nann.training.export.onnx_file import export_module

pytestmark = pytest.mark.heavy
ITEMS, WIDTH, LENGTH = 50, 8, 6


class Gru4Rec(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.items, self.gru = nn.Embedding(ITEMS + 1, WIDTH), nn.GRU(WIDTH, WIDTH, 2, batch_first=True)

    def forward(self, behaviors: Tensor, profile_codes: Tensor) -> Tensor:
        states = self.gru(self.items(behaviors.long() + 1))[0]
        last = ((behaviors >= 0).sum(1) - 1).clamp(min=0)
        return states[torch.arange(behaviors.shape[0]), last]


class Lstm(Gru4Rec):
    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.LSTM(WIDTH, WIDTH, bidirectional=True, batch_first=True)


class SasRec(nn.Module):
    """Attention with a finite float mask, and a feed-forward of two Conv1d."""

    def __init__(self) -> None:
        super().__init__()
        self.items, self.places = nn.Embedding(ITEMS + 1, WIDTH), nn.Embedding(LENGTH, WIDTH)
        self.attention = nn.MultiheadAttention(WIDTH, 2, batch_first=True)
        self.first, self.second = nn.Conv1d(WIDTH, WIDTH, 1), nn.Conv1d(WIDTH, WIDTH, 1)
        self.norms = nn.ModuleList(nn.LayerNorm(WIDTH) for _ in range(2))

    def forward(self, behaviors: Tensor, profile_codes: Tensor) -> Tensor:
        value = self.items(behaviors.long() + 1) + self.places.weight
        mask = torch.full((LENGTH, LENGTH), -1e9).triu(1)
        query = self.norms[0](value)
        value = value + self.attention(query, value, value, attn_mask=mask, need_weights=False)[0]
        fed = self.second(self.first(self.norms[1](value).transpose(1, 2)).relu()).transpose(1, 2)
        return (value + fed)[:, -1]


class Din(nn.Module):
    """Attention of each candidate over the behaviors, which the user state holds; Dice's batch normalization."""

    def __init__(self) -> None:
        super().__init__()
        self.items = nn.Embedding(ITEMS + 1, WIDTH)
        self.weight = nn.Sequential(nn.Linear(4 * WIDTH, 8), nn.PReLU(), nn.Linear(8, 1))
        self.norm, self.out = nn.BatchNorm1d(2 * WIDTH), nn.Linear(2 * WIDTH, 1)
        self.norm.running_mean.normal_()

    def forward(self, user_state: Tensor, candidates: Tensor) -> Tensor:
        behaviors = user_state.unflatten(1, (-1, WIDTH))[:, None]  # [B, 1, L, D]
        items = self.items(candidates.long() + 1)[:, :, None]  # [B, C, 1, D]
        items, behaviors = torch.broadcast_tensors(items, behaviors)
        weights = self.weight(torch.cat([items, behaviors, items - behaviors, items * behaviors], -1))
        pooled = torch.cat([(weights.softmax(2) * behaviors).sum(2), items[:, :, 0]], -1)  # [B, C, 2 D]
        return self.out(self.norm(pooled.flatten(0, 1))).view(candidates.shape)


class DcnV2(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.items = nn.Embedding(ITEMS + 1, WIDTH)
        self.cross = nn.ModuleList(nn.Linear(7 * WIDTH, 7 * WIDTH) for _ in range(2))
        self.out = nn.Linear(7 * WIDTH, 1)

    def forward(self, user_state: Tensor, candidates: Tensor) -> Tensor:
        users = user_state[:, None].expand(-1, candidates.shape[1], -1)
        crossed = first = torch.cat([users, self.items(candidates.long() + 1)], -1)
        for layer in self.cross:
            crossed = first * layer(crossed) + crossed
        return self.out(crossed)[..., 0]


class Mol(nn.Module):
    """Mixture of logits: products of normalized parts of user and item, gated by both."""

    def __init__(self) -> None:
        super().__init__()
        self.items = nn.Embedding(ITEMS + 1, 2 * WIDTH)
        self.user_gate, self.item_gate = nn.Linear(6 * WIDTH, 12), nn.Linear(2 * WIDTH, 12)
        self.pair_gate = nn.Sequential(nn.Linear(12, 8), nn.SiLU(), nn.Linear(8, 12))

    def forward(self, user_state: Tensor, candidates: Tensor) -> Tensor:
        items = self.items(candidates.long() + 1)
        users = functional.normalize(user_state.unflatten(1, (6, WIDTH)), dim=-1)
        logits = torch.einsum("bud,bcid->bcui", users, functional.normalize(items.unflatten(2, (2, WIDTH)), dim=-1))
        logits = logits.flatten(2)
        gates = self.user_gate(user_state)[:, None] * self.item_gate(items) + self.pair_gate(logits)
        return (gates.softmax(-1) * logits).sum(-1)


@pytest.mark.parametrize("kind", [Gru4Rec, Lstm, SasRec, Din, DcnV2, Mol])
def test_torch_onnxruntime_and_the_target_torch_agree(tmp_path, kind):
    torch.manual_seed(0)
    module, path = kind().eval(), tmp_path / "model.onnx"
    spec = USER_ENCODER if kind in (Gru4Rec, Lstm, SasRec) else SCORER
    second = {0: Dim("B")} if spec is USER_ENCODER else {0: Dim("B"), 1: Dim("C")}
    export_module(module, _inputs(spec, 2, 3), spec, ({0: Dim("B")}, second), path)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    runner = OnnxTorchModule(path, spec)
    read = [value.name for value in session.get_inputs()]
    for users, candidates in ((1, 1), (5, 7)):
        feed = dict(zip([tensor.name for tensor in spec.inputs], _inputs(spec, users, candidates), strict=True))
        (by_onnxruntime,) = session.run(None, {name: feed[name].numpy() for name in read})
        with torch.inference_mode():
            expected, got = module(*feed.values()), runner(feed)
        np.testing.assert_allclose(by_onnxruntime, expected, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


def _inputs(spec, users: int, candidates: int) -> tuple[Tensor, Tensor]:
    if spec is USER_ENCODER:
        behaviors = torch.randint(0, ITEMS, (users, LENGTH), dtype=torch.int32)
        behaviors[:, LENGTH // 2 :].masked_fill_(torch.rand(users, LENGTH // 2) < 0.5, -1)
        return behaviors, torch.zeros(users, 2, dtype=torch.int32)
    return torch.randn(users, LENGTH * WIDTH), torch.randint(-1, ITEMS, (users, candidates), dtype=torch.int32)
