"""ONNX operators (opset 13 to 22) in torch: those that torch's exporter writes for scorers and user encoders."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import onnx
import torch
from torch import Tensor
from torch.nn import functional

from .onnx_torch_layers import batch_norm, conv, gemm, gru, layer_norm, lstm


@dataclass(frozen=True)
class Host:
    """A small value of whole numbers in host memory, such as a shape, axes or a split.

    Attributes:
        tensor: the value, on the CPU.
        copy: the same value on the device, if it is a constant of the model.
    """

    tensor: Tensor
    copy: Tensor | None = None

    def numbers(self) -> list[int]:
        """The numbers as a flat list."""
        return [int(number) for number in self.tensor.reshape(-1).tolist()]


Arguments = Sequence[Any]
Operator = Callable[[Arguments, dict[str, Any], torch.device], Sequence[Any]]
"""(inputs, attributes, device) -> outputs. An input is a Tensor on the device, a Host value, or None."""


def _plain(function: Callable[..., Tensor]) -> Operator:
    """An operator without attributes. If all its inputs are host values, its output is one too."""

    def run(arguments: Arguments, _: dict[str, Any], device: torch.device) -> list[Any]:
        if all(isinstance(argument, Host) for argument in arguments):
            return [Host(function(*(argument.tensor for argument in arguments)))]
        return [function(*(_on(argument, device) for argument in arguments))]

    return run


def _on(argument: Any, device: torch.device) -> Any:
    """A host value as an argument beside device tensors. A constant has a copy there; a single number needs none."""
    if not isinstance(argument, Host):
        return argument
    if argument.copy is not None:
        return argument.copy
    return argument.tensor if argument.tensor.ndim == 0 else argument.tensor.to(device)


def _numbers(argument: Any) -> list[int]:
    if not isinstance(argument, Host):
        raise NotImplementedError("a shape or an axis that depends on values")
    return argument.numbers()


def _with(function: Callable[..., Any]) -> Operator:
    """An operator `function(inputs, attributes, device)` with one output."""
    return lambda arguments, attributes, device: [function(arguments, attributes, device)]


def _axes(arguments: Arguments, attributes: dict[str, Any]) -> list[int] | None:
    """The axes: an input (since opset 13 or 18) or an attribute (before); None: all axes."""
    if len(arguments) > 1 and arguments[1] is not None:
        return _numbers(arguments[1])
    axes: list[int] | None = attributes.get("axes")
    return axes


def _reduction(function: Callable[..., Tensor]) -> Operator:
    def run(arguments: Arguments, attributes: dict[str, Any], _: torch.device) -> list[Tensor]:
        axes = _axes(arguments, attributes)
        if axes is None and attributes.get("noop_with_empty_axes"):
            return [arguments[0]]
        axes = list(range(arguments[0].ndim)) if axes is None else axes
        return [function(arguments[0], dim=axes, keepdim=bool(attributes.get("keepdims", 1)))]

    return run


def _cast(arguments: Arguments, attributes: dict[str, Any], _: torch.device) -> Any:
    value, kind = arguments[0], onnx.helper.tensor_dtype_to_np_dtype(attributes["to"])
    dtype = getattr(torch, kind.name)
    if isinstance(value, Host):
        return Host(value.tensor.to(dtype)) if not dtype.is_floating_point else value.tensor.to(dtype)
    return value.to(dtype)


def _gather(arguments: Arguments, attributes: dict[str, Any], device: torch.device) -> Any:
    table, indices, axis = arguments[0], arguments[1], attributes.get("axis", 0)
    if isinstance(table, Host) and isinstance(indices, Host):
        return Host(table.tensor[indices.tensor])
    table, indices = _on(table, device), _on(indices, device)
    axis %= table.ndim
    if indices.ndim == 0 or indices.device != table.device:
        indices = indices.to(table.device)
    shape = (*table.shape[:axis], *indices.shape, *table.shape[axis + 1 :])
    # Negative indices count from the end; `index_select` does not support them.
    wrapped = torch.where(indices < 0, indices + table.shape[axis], indices)
    return table.index_select(axis, wrapped.reshape(-1)).reshape(shape)


def _gather_nd(arguments: Arguments, attributes: dict[str, Any], device: torch.device) -> Tensor:
    table, indices = (_on(argument, device) for argument in arguments)
    batch = []
    for axis, size in enumerate(table.shape[: attributes.get("batch_dims", 0)]):
        shape = [size if place == axis else 1 for place in range(indices.ndim - 1)]
        batch.append(torch.arange(size, device=table.device).reshape(shape))
    places = (*batch, *indices.unbind(-1))
    chosen: Tensor = table[places]
    return chosen


def _gather_elements(arguments: Arguments, attributes: dict[str, Any], device: torch.device) -> Tensor:
    table, indices = (_on(argument, device) for argument in arguments)
    axis = attributes.get("axis", 0)
    return table.gather(axis, torch.where(indices < 0, indices + table.shape[axis], indices).long())


def _reshape(arguments: Arguments, attributes: dict[str, Any], _: torch.device) -> Any:
    value, shape = arguments[0], _numbers(arguments[1])
    if isinstance(value, Host):
        return Host(value.tensor.reshape(shape))
    if not attributes.get("allowzero"):
        shape = [value.shape[place] if size == 0 else size for place, size in enumerate(shape)]
    return value.reshape(shape)


def _unsqueeze(arguments: Arguments, attributes: dict[str, Any], _: torch.device) -> Any:
    value = arguments[0].tensor if isinstance(arguments[0], Host) else arguments[0]
    axes = _axes(arguments, attributes) or []
    rank = value.ndim + len(axes)
    for axis in sorted(axis % rank for axis in axes):
        value = value.unsqueeze(axis)
    return Host(value) if isinstance(arguments[0], Host) else value


def _squeeze(arguments: Arguments, attributes: dict[str, Any], _: torch.device) -> Any:
    value = arguments[0].tensor if isinstance(arguments[0], Host) else arguments[0]
    axes = _axes(arguments, attributes)
    value = value.squeeze() if axes is None else value.squeeze(tuple(axes))
    return Host(value) if isinstance(arguments[0], Host) else value


def _concat(arguments: Arguments, attributes: dict[str, Any], device: torch.device) -> Any:
    if all(isinstance(argument, Host) for argument in arguments):
        return Host(torch.cat([argument.tensor for argument in arguments], dim=attributes["axis"]))
    return torch.cat([_on(argument, device) for argument in arguments], dim=attributes["axis"])


def _split(arguments: Arguments, attributes: dict[str, Any], _: torch.device) -> Sequence[Tensor]:
    value, axis = arguments[0], attributes.get("axis", 0)
    if len(arguments) > 1 and arguments[1] is not None:
        return value.split(_numbers(arguments[1]), dim=axis)
    if "split" in attributes:
        return value.split(list(attributes["split"]), dim=axis)
    return value.split(math.ceil(value.shape[axis] / attributes["num_outputs"]), dim=axis)


def _slice(arguments: Arguments, _: dict[str, Any], __: torch.device) -> Any:
    on_host = isinstance(arguments[0], Host)
    value = arguments[0].tensor if on_host else arguments[0]
    starts, ends = _numbers(arguments[1]), _numbers(arguments[2])
    given = [_numbers(argument) if argument is not None else None for argument in arguments[3:]]
    axes = given[0] if given and given[0] is not None else range(len(starts))
    steps = given[1] if len(given) > 1 and given[1] is not None else [1] * len(starts)
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        if step < 1:
            raise NotImplementedError(f"Slice with step {step}")
        places: list[Any] = [slice(None)] * value.ndim
        size = value.shape[axis]  # "to the end" is the largest int64, "from the start" the least
        places[axis] = slice(max(start, -size), min(end, size), step)
        value = value[tuple(places)]
    return Host(value) if on_host else value


def _shape(arguments: Arguments, attributes: dict[str, Any], _: torch.device) -> Host:
    value = arguments[0].tensor if isinstance(arguments[0], Host) else arguments[0]
    sizes = list(value.shape)[attributes.get("start", 0) : attributes.get("end")]
    return Host(torch.tensor(sizes, dtype=torch.int64))


def _size(arguments: Arguments, _: dict[str, Any], device: torch.device) -> Host:
    return Host(torch.tensor(_on(arguments[0], device).numel(), dtype=torch.int64))


def _trilu(arguments: Arguments, attributes: dict[str, Any], device: torch.device) -> Tensor:
    diagonal = _numbers(arguments[1])[0] if len(arguments) > 1 and arguments[1] is not None else 0
    return (torch.triu if attributes.get("upper", 1) else torch.tril)(_on(arguments[0], device), diagonal)


def _top_k(arguments: Arguments, attributes: dict[str, Any], _: torch.device) -> Sequence[Tensor]:
    largest = bool(attributes.get("largest", 1))
    return torch.topk(arguments[0], _numbers(arguments[1])[0], attributes.get("axis", -1), largest)


def _expand(arguments: Arguments, _: dict[str, Any], device: torch.device) -> Tensor:
    value = _on(arguments[0], device)
    return value.expand(torch.broadcast_shapes(value.shape, _numbers(arguments[1])))


def _constant(_: Arguments, attributes: dict[str, Any], device: torch.device) -> Any:
    if "value" not in attributes:
        raise NotImplementedError("Constant without a tensor")
    value: Tensor = attributes["value"]
    return value.to(device) if value.dtype.is_floating_point else Host(value)


def _constant_of_shape(arguments: Arguments, attributes: dict[str, Any], device: torch.device) -> Tensor:
    value = attributes.get("value", torch.zeros(1))
    return torch.full(_numbers(arguments[0]), value.item(), dtype=value.dtype, device=device)


def _range(arguments: Arguments, _: dict[str, Any], device: torch.device) -> Tensor:
    start, limit, step = (_numbers(argument)[0] for argument in arguments)
    return torch.arange(start, limit, step, device=device)


def _clip(arguments: Arguments, _: dict[str, Any], device: torch.device) -> Tensor:
    value, low, high = (_on(argument, device) for argument in (*arguments, None, None)[:3])
    if low is None and high is None:
        return value
    return value.clamp(low, high) if low is not None else value.clamp(max=high)


def _prelu(value: Tensor, slope: Tensor) -> Tensor:
    return torch.where(value < 0, value * slope, value)


def _pow(base: Tensor, exponent: Tensor) -> Tensor:
    return base.pow(exponent).to(base.dtype)


def _div(a: Tensor, b: Tensor) -> Tensor:
    return a / b if a.dtype.is_floating_point else torch.div(a, b, rounding_mode="trunc")


def _many(function: Callable[[Tensor, Tensor], Tensor]) -> Operator:
    return _plain(lambda *values: reduce(function, values))


def _activation(function: Callable[..., Tensor], **names: tuple[str, Any]) -> Operator:
    """A function of one tensor whose keyword arguments are attributes: `argument=(attribute, default)`."""

    def run(arguments: Arguments, attributes: dict[str, Any], _: torch.device) -> list[Tensor]:
        keywords = {name: attributes.get(attribute, default) for name, (attribute, default) in names.items()}
        return [function(arguments[0], **keywords)]

    return run


_PLAIN: dict[str, Callable[..., Tensor]] = {
    "Abs": torch.abs,
    "Add": torch.add,
    "And": torch.logical_and,
    "Ceil": torch.ceil,
    "Cos": torch.cos,
    "Div": _div,
    "Equal": torch.eq,
    "Erf": torch.erf,
    "Exp": torch.exp,
    "Floor": torch.floor,
    "Greater": torch.gt,
    "GreaterOrEqual": torch.ge,
    "Identity": lambda value: value,
    "IsNaN": torch.isnan,
    "Less": torch.lt,
    "LessOrEqual": torch.le,
    "Log": torch.log,
    "MatMul": torch.matmul,
    "Mod": torch.remainder,
    "Mul": torch.mul,
    "Neg": torch.neg,
    "Not": torch.logical_not,
    "Or": torch.logical_or,
    "PRelu": _prelu,
    "Pow": _pow,
    "Reciprocal": torch.reciprocal,
    "Relu": torch.relu,
    "Sigmoid": torch.sigmoid,
    "Sign": torch.sign,
    "Sin": torch.sin,
    "Softplus": functional.softplus,
    "Sqrt": torch.sqrt,
    "Sub": torch.sub,
    "Tanh": torch.tanh,
    "Where": torch.where,
    "Xor": torch.logical_xor,
}
OPERATORS: dict[str, Operator] = {
    **{name: _plain(function) for name, function in _PLAIN.items()},
    "Max": _many(torch.maximum),
    "Min": _many(torch.minimum),
    "Sum": _many(torch.add),
    "ReduceMax": _reduction(torch.amax),
    "ReduceMean": _reduction(torch.mean),
    "ReduceMin": _reduction(torch.amin),
    "ReduceSum": _reduction(torch.sum),
    "ReduceL1": _reduction(lambda value, dim, keepdim: value.abs().sum(dim, keepdim)),
    "ReduceLogSumExp": _reduction(torch.logsumexp),
    "ReduceSumSquare": _reduction(lambda value, dim, keepdim: value.square().sum(dim, keepdim)),
    "ReduceL2": _reduction(torch.linalg.vector_norm),
    "Elu": _activation(functional.elu, alpha=("alpha", 1.0)),
    "LeakyRelu": _activation(functional.leaky_relu, negative_slope=("alpha", 0.01)),
    "Gelu": _activation(functional.gelu, approximate=("approximate", "none")),
    "HardSwish": _activation(functional.hardswish),
    "Mish": _activation(functional.mish),
    "LogSoftmax": _activation(torch.log_softmax, dim=("axis", -1)),
    "Softmax": _activation(torch.softmax, dim=("axis", -1)),
    "BatchNormalization": _with(batch_norm),
    "Cast": _with(_cast),
    "Clip": _with(_clip),
    "Concat": _with(_concat),
    "Constant": _with(_constant),
    "Conv": _with(conv),
    "ConstantOfShape": _with(_constant_of_shape),
    "CumSum": _with(lambda arguments, _, __: arguments[0].cumsum(_numbers(arguments[1])[0])),
    "Einsum": lambda arguments, attributes, _: [torch.einsum(attributes["equation"], *arguments)],
    "Expand": _with(_expand),
    "Flatten": _with(lambda arguments, attributes, _: arguments[0].flatten(attributes.get("axis", 1))),
    "Gather": _with(_gather),
    "GRU": gru,
    "GatherElements": _with(_gather_elements),
    "GatherND": _with(_gather_nd),
    "Gemm": _with(gemm),
    "LSTM": lstm,
    "LayerNormalization": _with(layer_norm),
    "Range": _with(_range),
    "Reshape": _with(_reshape),
    "Shape": _with(_shape),
    "Size": _with(_size),
    "Slice": _with(_slice),
    "Split": _split,
    "Squeeze": _with(_squeeze),
    "Tile": _with(lambda arguments, _, __: arguments[0].tile(_numbers(arguments[1]))),
    "TopK": _top_k,
    "Transpose": _with(lambda arguments, attributes, _: arguments[0].permute(attributes["perm"])),
    "Trilu": _with(_trilu),
    "Unsqueeze": _with(_unsqueeze),
}
