"""Engines that run an exported scorer on the CPU: the served one and others, on one thread unless named otherwise."""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nann.bundle import Bundle
from nann.native_scorer import native_refusal
from nann.scorer import Float32Array, Int32Array
from nann.signature import SCORER
from nann.threads import core_count

from ...python_backend.engines.native_model import NativeModel
from ...python_backend.engines.onnx_model import EmbeddedScorer
from ...python_backend.engines.openvino_model import OpenVinoModel, openvino_refusal
from ...training.scorers import OnnxScorer
from ..benchmark import Say

SERVED = "onnxruntime, as served"
NATIVE = "native"
Score = Callable[[Float32Array, Int32Array], Float32Array]


@dataclass(frozen=True)
class Engine:
    """A named `nann.scorer.Scorer`: (user_states float32[B, S], candidates int32[B, C]) -> float32[B, C]."""

    name: str
    score: Score


def engines(path: Path, folder: Path, say: Say, manifest: Mapping[str, Any]) -> list[Engine]:
    """The engines that this machine has, onnxruntime as served first.

    Args:
        path: the exported scorer.
        manifest: of its bundle; for the native form.
        folder: gets a quantized copy of it.
        say: gets a line for each engine that is left out, with the reason.
    """
    found = [Engine(SERVED, served_engine(path)), Engine("onnxruntime, whole calls", OnnxScorer(path, 1).score)]
    native = native_engine(path.parent, manifest, say)
    found += [] if native is None else [Engine(NATIVE, native.score)]
    quantized = quantize(path, folder / "int8.onnx")
    found.append(Engine("onnxruntime, int8", served_engine(quantized)))
    if (cores := core_count()) > 1:
        found.append(Engine(f"{SERVED}, {cores} threads", served_engine(path, cores)))
        found.append(Engine(f"onnxruntime, whole calls, {cores} threads in operators", OnnxScorer(path, cores).score))
    if (refusal := openvino_refusal()) is None:
        found.append(Engine("OpenVINO, bf16", OpenVinoModel(path, SCORER).score))
    else:
        say(f"OpenVINO is left out: {refusal}")
    return found


def served_engine(path: Path, threads: int = 1) -> Score:
    """The Triton target `embedded` (`model_repository/scorer/configs/embedded.pbtxt`)."""
    return EmbeddedScorer.open(path, threads).score


def native_engine(folder: Path, manifest: Mapping[str, Any], say: Say) -> NativeModel | None:
    """The scorer's native form in a folder; None, and a line that says why, if it can't run here."""
    refusal = native_refusal(manifest)
    if refusal is not None:
        say(f"the native form is left out: {refusal}")
        return None
    return NativeModel(Bundle(folder, manifest))


def quantize(path: Path, target: Path) -> Path:
    """Writes a copy with matrix weights in int8, activations quantized per call, tables and attention in float32."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    logging.disable(logging.WARNING)  # it recommends a pre-processing that changes nothing here
    try:
        with tempfile.TemporaryDirectory(dir=target.parent) as folder:
            # A copy: onnx refuses external data with several hard links, which a bundle's files may have.
            for part in path.parent.glob(f"{path.name}*"):
                shutil.copy(part, folder)
            copy = str(Path(folder) / path.name)
            quantize_dynamic(copy, str(target), op_types_to_quantize=["MatMul", "Gemm"], weight_type=QuantType.QInt8)
    finally:
        logging.disable(logging.NOTSET)
    return target
