"""The native form of the product's own scorers (`nann.native_scorer`): what the loop needs, beside the ONNX file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from nann.native_scorer import NATIVE_SCORER_FILE, NETWORK, SIMILARITY
from nann.scorer import Float32Array

from .kernel_modules import KernelRowScorer
from .serving_modules import RowScorer


def write_native(scorer: nn.Module, onnx_file: Path) -> dict[str, Any] | None:
    """Writes the small weights of a scorer beside its ONNX file.

    Args:
        scorer: a module that `onnx_file` was exported from.
        onnx_file: its item table stays there, if it is large enough to be external data.

    Returns:
        The manifest's entry, `export.native`; None, and nothing is written, if the module has no native form.
    """
    found = _form(scorer)
    if found is None:
        return None
    form, arrays = found
    table = getattr(scorer, "items", None)
    if isinstance(table, Tensor):
        form["table"] = place = _place(onnx_file, list(table.shape))
        if place is None:
            arrays["rows"] = _array(table)
    np.savez(onnx_file.with_name(NATIVE_SCORER_FILE), **arrays)
    return form


def _form(scorer: nn.Module) -> tuple[dict[str, Any], dict[str, Float32Array]] | None:
    if isinstance(scorer, KernelRowScorer):
        return _similarity(
            width=scorer.width,
            heads=scorer.heads,
            attended=scorer.attended,
            repeats=scorer.repeats,
            digits=scorer.digits,
            evidences=scorer.evidences,
        )
    if not isinstance(scorer, RowScorer):
        return None
    config = scorer.config
    if config.architecture == "two_sided":
        return _similarity(width=scorer.hidden)
    arrays = _layers(scorer.tail)
    if arrays is None:
        return None
    attention = config.attention_dim if config.architecture == "attention" else 0
    sizes = {"hidden": scorer.hidden, "attention": attention, "length": config.sequence_length}
    return {"form": NETWORK, **sizes}, arrays


def _similarity(
    width: int, heads: int = 0, attended: int = 0, repeats: int = 0, digits: int = 0, evidences: int = 0
) -> tuple[dict[str, Any], dict[str, Float32Array]]:
    sizes = {"heads": heads, "attended": attended, "repeats": repeats, "digits": digits, "evidences": evidences}
    return {"form": SIMILARITY, "width": width, **sizes}, {}


def _layers(tail: nn.Module) -> dict[str, Float32Array] | None:
    """What `native_kernel` takes; None unless the tail is LeakyReLU and Linear in turns, the last with one output."""
    parts = [part for part in tail.children() if not isinstance(part, nn.Identity)]
    slopes, layers = parts[::2], parts[1::2]
    pairs = len(slopes) == len(layers) > 0
    if not pairs or not all(isinstance(part, nn.LeakyReLU) for part in slopes):
        return None
    arrays = {"slopes": np.array([float(part.negative_slope) for part in slopes], np.float32)}  # type: ignore[arg-type]
    for i, layer in enumerate(layers):
        if not isinstance(layer, nn.Linear) or layer.bias is None:
            return None
        arrays |= {f"weight{i}": _array(layer.weight.T), f"bias{i}": _array(layer.bias)}
    last = len(layers) - 1
    arrays["output"], arrays["output_bias"] = arrays.pop(f"weight{last}")[:, 0].copy(), arrays.pop(f"bias{last}")
    return arrays


def _array(tensor: Tensor) -> Float32Array:
    return np.ascontiguousarray(tensor.detach().to(torch.float32).numpy())


def _place(onnx_file: Path, shape: list[int]) -> dict[str, Any] | None:
    """Where the only tensor of a shape is in the file's external data; None if it is in the file itself."""
    model = onnx.load(str(onnx_file), load_external_data=False)
    external = [one for one in model.graph.initializer if one.data_location == onnx.TensorProto.EXTERNAL]
    found = [one for one in external if list(one.dims) == shape and one.data_type == onnx.TensorProto.FLOAT]
    if len(found) != 1:
        return None
    entries = {entry.key: entry.value for entry in found[0].external_data}
    return {"file": entries["location"], "offset": int(entries.get("offset", 0)), "shape": shape}
