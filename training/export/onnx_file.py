"""One torch module -> one ONNX file that declares a signature."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

import onnx
import torch
from torch import Tensor, nn
from torch.export import Dim

from nann.errors import ScorerError
from nann.signature import ModelSpec

from .model_contract import root_cause

_EXTERNAL_BYTES = 1 << 20
"""Tensors of this size or more are stored beside the ONNX file."""


def export_module(
    module: nn.Module,
    inputs: tuple[Tensor, ...],
    spec: ModelSpec,
    dynamic_shapes: tuple[dict[int, Dim], ...],
    path: Path,
) -> None:
    """Writes a module, in evaluation mode and on the CPU, as ONNX with the names and types of `spec`.

    `inputs` are examples; each dimension that varies, by `dynamic_shapes`, must be at least 2.

    Raises:
        ScorerError: if torch can't export it.
    """
    names = [tensor.name for tensor in spec.inputs]
    try:
        with _quiet():
            program = torch.onnx.export(
                module, inputs, dynamo=True, input_names=names, output_names=[tensor.name for tensor in spec.outputs],
                dynamic_shapes=dynamic_shapes, verbose=False,
            )  # fmt: skip
    except Exception as error:  # the exporter wraps any exception of the module or of torch.export in its own types
        raise ScorerError(
            f"{spec.name} can't be exported to ONNX: {root_cause(error)}; expected a module that torch.export can "
            f"trace: without branches on values, and with sizes taken from its inputs{_mask_advice(module)}"
        ) from error
    assert program is not None
    model = program.model_proto
    for part in (*model.graph.node, *model.graph.value_info, model.graph):
        part.ClearField("metadata_props")  # holds stack traces and paths of this machine
    _declare_signature(model, spec)
    _save(model, path)


def _mask_advice(module: nn.Module) -> str:
    """For modules of torch that look at the values of a mask to find out whether it is causal."""
    if any(isinstance(part, nn.TransformerEncoder) for part in module.modules()):
        return "; call nn.TransformerEncoder with is_causal=False, which still applies the mask"
    return ""


def external_data_file(name: str) -> str:
    """Name of the file beside an ONNX file that holds its large tensors."""
    return f"{name}.data"


def _save(model: onnx.ModelProto, path: Path) -> None:
    """Writes a model, its large tensors as external data.

    onnxruntime maps that file: all processes share one copy, and none parses it. An ONNX file itself ends at 2 GB.
    """
    data = path.with_name(external_data_file(path.name))
    onnx.save(
        model, str(path), save_as_external_data=True, location=data.name, size_threshold=_EXTERNAL_BYTES,
        convert_attribute=False,
    )  # fmt: skip
    if data.exists():
        data.chmod(path.stat().st_mode)  # onnx makes it readable for the owner only


def _declare_signature(model: onnx.ModelProto, spec: ModelSpec) -> None:
    """Makes the file declare the tensors of `nann.signature`, which Triton's ONNX Runtime backend checks.

    Adds inputs that the module does not read, and makes the widths of this bundle (S, L, P, R) symbols.
    """
    declared = {value.name: value for value in (*model.graph.input, *model.graph.output)}
    for tensor in (*spec.inputs, *spec.outputs):
        value = declared.get(tensor.name)
        if value is None:
            value = model.graph.input.add(name=tensor.name)
            value.type.tensor_type.elem_type = onnx.helper.np_dtype_to_tensor_dtype(tensor.dtype)
            value.type.tensor_type.shape.dim.add(dim_param="B")
            for _ in tensor.shape:
                value.type.tensor_type.shape.dim.add()
        *counts, width = value.type.tensor_type.shape.dim[1:]
        for dimension, name in (*((count, "count") for count in counts), (width, "width")):
            if not dimension.dim_param:
                dimension.dim_param = f"{tensor.name}_{name}"


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hides the exporter's progress and its deprecation warnings, which do not concern the user."""
    disabled = logging.root.manager.disable
    logging.disable(logging.ERROR)
    void = io.StringIO()
    with warnings.catch_warnings(), contextlib.redirect_stdout(void), contextlib.redirect_stderr(void):
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            logging.disable(disabled)
