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
from nann.scorer import Float32Array, Int32Array, score_in_blocks, shared_by
from nann.signature import CANDIDATES, SCORER, USER_STATE, ModelSpec

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
        self._dtypes = {tensor.name: tensor.dtype for tensor in spec.inputs}
        self._check_signature(path)
        self._inputs = {tensor.name: tuple(tensor.shape) for tensor in self._session.get_inputs()}

    def run(self, inputs: Mapping[str, npt.NDArray[Any]]) -> npt.NDArray[Any]:
        """Runs the model.

        Args:
            inputs: arrays by name, batch dimension first; inputs that the model does not read are ignored.

        Returns:
            The output, `[B, ...]`. It has any number where candidates are padding.

        Raises:
            ScorerError: naming the model, if it fails or returns another batch size.
        """
        if CANDIDATES.name not in self._inputs:
            return self._run(inputs)

        def score(user_states: Float32Array, candidates: Int32Array) -> Float32Array:
            return self._run({USER_STATE.name: user_states, CANDIDATES.name: candidates})

        candidates = inputs[CANDIDATES.name]
        pairs = block_pairs(candidates.size, self._threads)
        return score_in_blocks(score, inputs[USER_STATE.name], candidates, pairs, self._each_block)

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

    def warm_up(self, sizes: Mapping[str, int]) -> None:
        """Runs the model once, so that a broken model fails at load and the first request is as fast as the next.

        Nothing is run if an input has a width that neither the model nor `sizes` states.

        Args:
            sizes: number of columns by input name, for inputs whose width the model leaves open.
        """
        feed = {}
        for name, (_, width) in self._inputs.items():
            columns = width if isinstance(width, int) else sizes.get(name)
            if columns is None:
                return
            feed[name] = np.zeros((_WARM_UP_BATCH, columns), self._dtypes[name])
        self.run(feed)

    def _check_signature(self, path: Path) -> None:
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        for tensor in inputs:
            if tensor.name not in self._dtypes:
                raise BundleError(f"{path} has an input {tensor.name}; expected {_names(self._spec)}")
        if self._output.name not in {tensor.name for tensor in outputs}:
            raise BundleError(f"{path} has no output {self._output.name}; expected {_names(self._spec)}")
        for tensor in (*inputs, *outputs):
            kind = _ONNX_TYPES[self._dtypes.get(tensor.name, self._output.dtype)]
            if tensor.name in {*self._dtypes, self._output.name} and (tensor.type != kind or len(tensor.shape) != 2):
                raise BundleError(
                    f"{path}: {tensor.name} is {tensor.type} {tensor.shape}; expected {kind} of [batch, any]"
                )


class EmbeddedScorer:
    """An exported scorer in this process, as in the target `embedded`; a `nann.scorer.Scorer`.

    Args:
        model: loaded with the signature `SCORER`.
    """

    def __init__(self, model: OnnxModel) -> None:
        self._model = model

    @classmethod
    def open(cls, path: Path, threads: int = 1) -> EmbeddedScorer:
        """Loads an ONNX file without verifying its hash; arguments and errors as for `OnnxModel`."""
        return cls(OnnxModel(path, SCORER, threads))

    def score(self, user_states: Float32Array, candidates: Int32Array) -> Float32Array:
        """See `nann.scorer.Scorer`."""
        return self._model.run({USER_STATE.name: user_states, CANDIDATES.name: candidates})


_ONNX_TYPES = {
    np.dtype(np.int32): "tensor(int32)",
    np.dtype(np.float32): "tensor(float)",
}


def _names(spec: ModelSpec) -> str:
    inputs, outputs = (", ".join(tensor.name for tensor in tensors) for tensors in (spec.inputs, spec.outputs))
    return f"inputs {inputs} and output {outputs}"
