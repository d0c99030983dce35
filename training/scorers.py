"""Scorers for offline work: the torch module itself, and the exported ONNX file in onnxruntime."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy.typing as npt
import onnxruntime
import torch
from torch import Tensor, nn

from nann.bundle import SCORER_FILE, Bundle
from nann.errors import BundleError
from nann.item_rows import ItemRows, candidate_tensor
from nann.scorer import Float32Array, Int32Array, score_in_blocks, shared_by
from nann.signature import BEHAVIORS, CANDIDATE_SCORES, PROFILE_CODES, USER_STATE
from nann.threads import core_count

_BLOCK_PAIRS = 200_000
"""(user, candidate) pairs per call; the activations of more would take gigabytes."""
_ONNX_BLOCK_PAIRS = 4_000
"""The same for onnxruntime on the CPU: few enough that a layer's output stays in the cache until the next reads it. On
one core 4,000 are 2.6 times as fast as 262,144."""


@contextlib.contextmanager
def trained_attention() -> Iterator[None]:
    """Runs torch's attention as in training: without the fast path that it takes in evaluation mode.

    The fast path of `nn.TransformerEncoder` and `nn.MultiheadAttention` takes any number but 0 in a float mask for
    "masked", and gives NaN where everything is masked: another function than the one that was trained and is exported.
    """
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


class GatheringScorer(nn.Module):
    """A scorer of rows (docs/custom_scorer.md) as one of candidates, to run in torch; it can't be exported."""

    def __init__(self, scorer: nn.Module, rows: ItemRows) -> None:
        super().__init__()
        self.scorer = scorer
        self.rows = rows

    def forward(self, user_state: Tensor, candidates: Tensor) -> Tensor:
        """(float32[B, S], int32[B, C]) -> float32[B, C]."""
        gathered = torch.from_numpy(self.rows.gather(candidates.cpu().contiguous().numpy()))
        scores: Tensor = self.scorer(user_state, gathered.to(user_state.device))
        return scores


class TorchScorer:
    """A Scorer around a torch module (user_state, candidates) -> scores, which is put in evaluation mode."""

    def __init__(self, module: nn.Module) -> None:
        self._module = module.eval()
        tensors = [*module.parameters(), *module.buffers()]
        self._device = tensors[0].device if tensors else torch.device("cpu")

    @torch.inference_mode()
    @trained_attention()
    def score(self, user_states: Float32Array, candidates: Int32Array) -> Float32Array:
        """See `nann.scorer.Scorer`."""
        return score_in_blocks(self._score_block, user_states, candidates, _BLOCK_PAIRS)

    def _score_block(self, user_states: Float32Array, candidates: Int32Array) -> Float32Array:
        states, items = (torch.from_numpy(array).to(self._device) for array in (user_states, candidates))
        scores: Float32Array = self._module(states, items).float().cpu().numpy()
        return scores


@torch.inference_mode()
@trained_attention()
def encode_users_torch(
    module: nn.Module, behaviors: Int32Array, profile_codes: Int32Array, block: int = 64
) -> Float32Array:
    """User states by a torch user encoder, a block of users at a time: int32[B, L], int32[B, P] -> float32[B, S].

    The module is put in evaluation mode.
    """
    module.eval()
    blocks = zip(*(torch.from_numpy(array).split(block) for array in (behaviors, profile_codes)), strict=True)
    states: Float32Array = torch.cat([module(*inputs) for inputs in blocks]).numpy()
    return states


class OnnxScorer:
    """A Scorer around an exported ONNX file.

    Args:
        path: the file.
        threads: so many threads share the pairs of a call; 0: as many as cores.
        rows: of the items, if the file is of a scorer without an item table.
    """

    def __init__(self, path: Path, threads: int = 0, rows: ItemRows | None = None) -> None:
        self._session = onnx_session(path, 1)
        self._each_block = shared_by(threads or core_count())
        self._rows = rows

    @classmethod
    def of_bundle(cls, bundle: Bundle, threads: int = 0) -> OnnxScorer:
        """The scorer of a bundle, in the form that it has."""
        return cls(bundle.path / SCORER_FILE, threads, bundle.item_rows)

    def score(self, user_states: Float32Array, candidates: Int32Array) -> Float32Array:
        """See `nann.scorer.Scorer`."""
        return score_in_blocks(self._score_block, user_states, candidates, _ONNX_BLOCK_PAIRS, self._each_block)

    def _score_block(self, user_states: Float32Array, candidates: Int32Array) -> Float32Array:
        spec, value = candidate_tensor(candidates, self._rows)
        feeds = {USER_STATE.name: user_states, spec.name: value}
        scores: Float32Array = self._session.run([CANDIDATE_SCORES.name], feeds)[0]
        return scores


class OnnxUserEncoder:
    """The exported user encoder: (int32[B, L], int32[B, P]) -> float32[B, S]."""

    def __init__(self, path: Path, threads: int = 0) -> None:
        self._session = onnx_session(path, threads)
        self._inputs = {value.name for value in self._session.get_inputs()}

    def encode(self, behaviors: Int32Array, profile_codes: Int32Array) -> Float32Array:
        """User states of a batch."""
        feeds: dict[str, npt.NDArray[Any]] = {BEHAVIORS.name: behaviors, PROFILE_CODES.name: profile_codes}
        kept = {name: value for name, value in feeds.items() if name in self._inputs}
        states: Float32Array = self._session.run([USER_STATE.name], kept)[0]
        return states


def onnx_session(path: Path, threads: int = 0) -> onnxruntime.InferenceSession:
    """Opens an ONNX file in onnxruntime on the CPU.

    Raises:
        BundleError: if the file is not an ONNX model that onnxruntime can run.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises one type of its own per status code
        raise BundleError(f"{path} can't be run by onnxruntime: {error}; export it again with `nann export`") from error
