"""One ONNX model under onnxruntime on the CPU, checked against its signature."""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime

from nann.errors import BundleError, ScorerError
from nann.item_rows import ItemRows, candidate_tensor
from nann.scorer import Float32Array, Int32Array, score_in_blocks, shared_by
from nann.signature import CANDIDATE_ROWS, CANDIDATES, ROW_SCORER, SCORER, USER_STATE, ModelSpec

from .scorer_engine import ScorerEngine

BLOCK_PAIRS = 1000
"""Pairs of a user and a candidate that a thread scores at a time. A layer's output then stays in the core's cache until
the next layer reads it (1,000 x 128 floats are 512 KB). 500 to 2,000 pairs are as fast, 17,000 up to 15% slower."""
_WARM_UP_BATCH = 2


def block_pairs(pairs: int, threads: int) -> int:
    """How many of a call's pairs make a block: at most `BLOCK_PAIRS`.

    A call that needs several blocks gives each thread the same number of them, of at least half of `BLOCK_PAIRS`.
    """
    if pairs <= BLOCK_PAIRS:
        return BLOCK_PAIRS
    blocks = threads * ceil(pairs / (threads * BLOCK_PAIRS))
    return max(BLOCK_PAIRS // 2, ceil(pairs / blocks))


class OnnxModel:
    """Runs the ONNX model of one `ModelSpec`.

    Args:
        path: the `.onnx` file; external data is in the same folder.
        spec: names, dtypes and ranks that the model must have. It may leave out inputs that it does not read.
        threads: number of threads that share the blocks of a scorer's candidates.

    Raises:
        BundleError: if onnxruntime can't load the model, or it does not fit the signature.
    """

    def __init__(self, path: Path, spec: ModelSpec, threads: int = 1) -> None:
        # The other options keep their defaults. IO binding, no memory arena or no memory pattern made no call faster:
        # the number of candidates changes from call to call.
        options = onnxruntime.SessionOptions()
        # Threads share blocks, not operators, so they synchronize once per call (`nann bench --only scorer` compares).
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's exceptions have no common base
            raise BundleError(f"{path} can't be loaded by onnxruntime: {error}; run `nann export` again") from error
        self._spec = spec
        self._threads = threads
        self._each_block = shared_by(threads)
        self._output = spec.outputs[0]
        self._specs = {tensor.name: tensor for tensor in spec.inputs}
        self._check_signature(path)
        self._inputs = {tensor.name: tuple(tensor.shape) for tensor in self._session.get_inputs()}
        self._candidates = next((spec for spec in (CANDIDATES, CANDIDATE_ROWS) if spec.name in self._inputs), None)

    def run(self, inputs: Mapping[str, npt.NDArray[Any]]) -> npt.NDArray[Any]:
        """Runs the model.

        Args:
            inputs: arrays by name, batch dimension first; inputs that the model does not read are ignored.

        Returns:
            The output, `[B, ...]`. It has any number where candidates are padding.

        Raises:
            ScorerError: naming the model, if it fails or returns another batch size.
        """
        if self._candidates is None:
            return self._run(inputs)
        return self.score(inputs[USER_STATE.name], inputs[self._candidates.name])

    def score(
        self, user_states: Float32Array, candidates: npt.NDArray[Any], rows: ItemRows | None = None
    ) -> Float32Array:
        """Runs a scorer, block by block.

        Args:
            user_states: `float32[B, S]`.
            candidates: what the scorer reads of them, `int32[B, C]` or `float32[B, C, R]`; with `rows` the former.
            rows: of the items, for a scorer without an item table; a block's rows are gathered with the block.

        Returns:
            `float32[B, C]`; any number where candidates are padding.

        Raises:
            ScorerError: naming the model, if it fails or returns another shape.
        """
        spec = self._candidates
        assert spec is not None

        def score(states: Float32Array, items: npt.NDArray[Any]) -> Float32Array:
            value = items if rows is None else candidate_tensor(items, rows)[1]
            return self._run({USER_STATE.name: states, spec.name: value})

        users, width = candidates.shape[:2]
        pairs = block_pairs(users * width, self._threads)
        return score_in_blocks(score, user_states, candidates, pairs, self._each_block)

    def _run(self, inputs: Mapping[str, npt.NDArray[Any]]) -> npt.NDArray[Any]:
        feed = {name: inputs[name] for name in self._inputs}
        try:
            (output,) = self._session.run([self._output.name], feed)
        except Exception as error:
            shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in feed.items())
            raise ScorerError(f"{self._spec.name} failed on {shapes}: {error}") from error
        batch = next(iter(feed.values())).shape[0]
        if output.shape[:1] != (batch,) or output.ndim != 2:
            raise ScorerError(
                f"{self._spec.name} returned {self._output.name} of shape {list(output.shape)}; expected [{batch}, any]"
            )
        return np.asarray(output)

    def warm_up(self, sizes: Mapping[str, tuple[int, ...]]) -> None:
        """Runs the model once, so that a broken model fails at load and the first request is as fast as the next.

        Nothing is run if an input has a size that neither the model nor `sizes` states.

        Args:
            sizes: shapes without the batch dimension by input name, for inputs whose sizes the model leaves open.
        """
        feed = {}
        for name, (_, *declared) in self._inputs.items():
            if not all(isinstance(size, int) for size in declared) and name not in sizes:
                return
            shape = [size if isinstance(size, int) else sizes[name][place] for place, size in enumerate(declared)]
            feed[name] = np.zeros((_WARM_UP_BATCH, *shape), self._specs[name].dtype)
        self.run(feed)

    def _check_signature(self, path: Path) -> None:
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        for tensor in inputs:
            if tensor.name not in self._specs:
                raise BundleError(f"{path} has an input {tensor.name}; expected {_names(self._spec)}")
        if self._output.name not in {tensor.name for tensor in outputs}:
            raise BundleError(f"{path} has no output {self._output.name}; expected {_names(self._spec)}")
        expected = {**self._specs, self._output.name: self._output}
        for tensor in (*inputs, *outputs):
            spec = expected.get(tensor.name)
            if spec and (tensor.type != _ONNX_TYPES[spec.dtype] or len(tensor.shape) != 1 + len(spec.shape)):
                raise BundleError(
                    f"{path}: {tensor.name} is {tensor.type} {tensor.shape}; expected {_ONNX_TYPES[spec.dtype]} of "
                    f"[batch{', any' * len(spec.shape)}]"
                )


class EmbeddedScorer:
    """An exported scorer in this process, as in the target `embedded`; a `nann.scorer.Scorer`.

    Args:
        model: what runs it.
        rows: of the items, if it has no item table.
    """

    def __init__(self, model: ScorerEngine, rows: ItemRows | None = None) -> None:
        self._model = model
        self._rows = rows

    @classmethod
    def open(cls, path: Path, threads: int = 1, rows: ItemRows | None = None) -> EmbeddedScorer:
        """Loads an ONNX file without verifying its hash; arguments and errors as for `OnnxModel`."""
        return cls(OnnxModel(path, SCORER if rows is None else ROW_SCORER, threads), rows)

    def score(self, user_states: Float32Array, candidates: Int32Array) -> Float32Array:
        """See `nann.scorer.Scorer`."""
        return self._model.score(user_states, candidates, self._rows)


_ONNX_TYPES = {
    np.dtype(np.int32): "tensor(int32)",
    np.dtype(np.float32): "tensor(float)",
}


def _names(spec: ModelSpec) -> str:
    inputs, outputs = (", ".join(tensor.name for tensor in tensors) for tensors in (spec.inputs, spec.outputs))
    return f"inputs {inputs} and output {outputs}"
