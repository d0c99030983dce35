"""An ONNX file as a torch module: the target `torch` runs the same files as every other target.

So a bundle needs no pickle, no TorchScript, and no program that only the exporting torch version can read. The graph in
the file states what is computed in half precision. In this package only the modules of the target `torch` import the
large libraries torch and onnx; import-linter checks that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from nann.errors import BundleError, ScorerError
from nann.onnx_data import read_external_data
from nann.signature import ModelSpec, TensorSpec

from .onnx_torch_ops import OPERATORS, Host, Operator

_HOST_DTYPES = (torch.int64, torch.bool)
_HOST_ELEMENTS = 64
_DEFAULT_DOMAINS = ("", "ai.onnx")


class OnnxTorchModule(nn.Module):
    """Runs the ONNX file of one `ModelSpec` in torch, on the CPU or on a GPU.

    Shapes, axes and sizes are computed on the host and never wait for the device, so that a run can be captured as
    a CUDA graph.

    Args:
        path: the `.onnx` file; external data is in the same folder.
        spec: names and dtypes that the model must have. It may leave out inputs that it does not read.

    Raises:
        BundleError: if the file can't be read, does not fit the signature, or has an operator outside `OPERATORS`.
    """

    def __init__(self, path: Path, spec: ModelSpec) -> None:
        super().__init__()
        try:
            model = onnx.load(str(path), load_external_data=False)
            read_external_data(model, path.parent)
        except Exception as error:  # protobuf's and onnx's own types
            raise BundleError(f"{path} can't be read as ONNX: {error}; run `nann export` again") from error
        self.spec = spec
        self.inputs = _checked_signature(path, model.graph, spec)
        self._host: dict[str, Tensor] = {}
        self._names: dict[str, str] = {}
        for number, tensor in enumerate(model.graph.initializer):
            value = torch.from_numpy(numpy_helper.to_array(tensor).copy())
            if value.dtype in _HOST_DTYPES and value.numel() <= _HOST_ELEMENTS:
                self._host[tensor.name] = value.clone()  # stays on the CPU
            self.register_buffer(f"constant{number}", value, persistent=False)
            self._names[tensor.name] = f"constant{number}"
        self._steps = [_step(path, node) for node in model.graph.node]
        self._last_use = _last_uses(self._steps, spec.outputs[0].name)

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        buffers = list(self.buffers())
        return buffers[0].device if buffers else torch.device("cpu")

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Runs the model.

        Args:
            inputs: tensors on `device` by name, batch dimension first; inputs that the model does not read are ignored.

        Returns:
            The output, `[B, ...]`.

        Raises:
            ScorerError: naming the output and the inputs of the operator that failed.
        """
        values: dict[str, Any] = {name: inputs[name] for name in self.inputs}
        for index, (operator, node_inputs, outputs, attributes) in enumerate(self._steps):
            arguments = [self._value(name, values) for name in node_inputs]
            try:
                results = operator(arguments, attributes, self.device)
            except (RuntimeError, ValueError, TypeError, IndexError, NotImplementedError) as error:
                given = ", ".join(f"{name} {_shape(value)}" for name, value in zip(node_inputs, arguments, strict=True))
                raise ScorerError(f"{self.spec.name} failed at {outputs[0]} ({given}): {error}") from error
            values.update(zip(outputs, results, strict=False))
            for name in self._last_use[index]:
                values.pop(name, None)
        output: Tensor = values[self.spec.outputs[0].name]
        return output

    def _value(self, name: str, values: Mapping[str, Any]) -> Any:
        if not name:
            return None  # an optional input that is left out
        if name in values:
            return values[name]
        constant = getattr(self, self._names[name])
        return Host(self._host[name], constant) if name in self._host else constant


def torch_dtype(tensor: TensorSpec) -> torch.dtype:
    """The dtype of a tensor as torch names it."""
    return torch.from_numpy(np.empty(0, tensor.dtype)).dtype


_Step = tuple[Operator, Sequence[str], Sequence[str], dict[str, Any]]


def _step(path: Path, node: onnx.NodeProto) -> _Step:
    operator = OPERATORS.get(node.op_type) if node.domain in _DEFAULT_DOMAINS else None
    if operator is None:
        raise BundleError(
            f"{path} has the operator {node.domain or 'ai.onnx'}.{node.op_type}, which the target torch does not know; "
            "serve it with the target tensorrt or onnxruntime, or write the module without it"
        )
    attributes = {attribute.name: _attribute(attribute) for attribute in node.attribute}
    return operator, tuple(node.input), tuple(node.output), attributes


def _attribute(attribute: onnx.AttributeProto) -> Any:
    value = onnx.helper.get_attribute_value(attribute)
    if isinstance(value, onnx.TensorProto):
        return torch.from_numpy(numpy_helper.to_array(value).copy())
    return value.decode() if isinstance(value, bytes) else value


def _last_uses(steps: Sequence[_Step], output: str) -> list[list[str]]:
    """For each step, the values that no later step reads. They are freed, which keeps the memory of a run small."""
    last: dict[str, int] = {}
    for index, (_, inputs, outputs, _) in enumerate(steps):
        last.update(dict.fromkeys((*inputs, *outputs), index))
    last.pop(output, None)
    uses: list[list[str]] = [[] for _ in steps]
    for name, index in last.items():
        uses[index].append(name)
    return uses


def _checked_signature(path: Path, graph: onnx.GraphProto, spec: ModelSpec) -> list[str]:
    constants = {tensor.name for tensor in graph.initializer}
    declared = {value.name: value for value in (*graph.input, *graph.output) if value.name not in constants}
    expected = {tensor.name: tensor for tensor in (*spec.inputs, *spec.outputs)}
    if spec.outputs[0].name not in declared:
        raise BundleError(f"{path} has no output {spec.outputs[0].name}; expected {', '.join(expected)}")
    for name, value in declared.items():
        if name not in expected:
            raise BundleError(f"{path} has a tensor {name}; expected {', '.join(expected)}")
        dtype = onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
        if dtype != expected[name].dtype:
            raise BundleError(f"{path}: {name} is {dtype}; expected {expected[name].dtype}")
    read = {name for node in graph.node for name in node.input}
    return [tensor.name for tensor in spec.inputs if tensor.name in read]


def _shape(value: Any) -> str:
    if isinstance(value, Host):
        return f"= {value.tensor.tolist()}"
    return f"{value.dtype}{list(value.shape)}" if isinstance(value, Tensor) else "left out"
