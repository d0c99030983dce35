"""ONNX's layers with weights in torch: GRU, LSTM, Conv, Gemm and normalizations, as torch's exporter writes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

_GRU_ORDER, _LSTM_ORDER = (1, 0, 2), (0, 2, 3, 1)
"""Place of torch's gates (r z n; i f g o) among those of ONNX (z r h; i o f c)."""
_FORWARD, _BOTH = "forward", "bidirectional"
_DEFAULTS: dict[str, Any] = {"layout": 0, "input_forget": 0, "clip": None, "activations": None}


def _refuse_others(name: str, attributes: dict[str, Any], unsupported: Sequence[Any]) -> None:
    for attribute, default in _DEFAULTS.items():
        if attributes.get(attribute, default) != default:
            raise NotImplementedError(f"{name} with {attribute} {attributes[attribute]}; expected the default")
    if attributes.get("direction", _FORWARD) not in (_FORWARD, _BOTH):
        raise NotImplementedError(f"{name} with direction {attributes['direction']}; expected {_FORWARD} or {_BOTH}")
    if any(argument is not None for argument in unsupported):
        raise NotImplementedError(f"{name} with sequence_lens or peepholes; expected neither")


def _ordered(weight: Tensor, order: tuple[int, ...]) -> Tensor:
    gates = weight.chunk(len(order))
    return torch.cat([gates[place] for place in order])


def _parameters(arguments: Sequence[Any], order: tuple[int, ...]) -> list[Tensor]:
    """ONNX's W [D, G*H, I], R [D, G*H, H] and B [D, 2*G*H] (or None) as torch's flat list, by direction."""
    w, r, b = arguments[1:4]
    parameters = []
    for direction in range(w.shape[0]):
        biases = b[direction].chunk(2) if b is not None else ()
        parameters += [_ordered(weight, order) for weight in (w[direction], r[direction], *biases)]
    return parameters


def _recurrent(name: str, arguments: Sequence[Any], attributes: dict[str, Any], order: tuple[int, ...]) -> list[Tensor]:
    """X [L, B, I] -> Y [L, D, B, H] and the last state or states [D, B, H]."""
    arguments = [*arguments, *[None] * (8 - len(arguments))]
    _refuse_others(name, attributes, (arguments[4], arguments[7]))
    value, both = arguments[0], attributes.get("direction") == _BOTH
    zeros = value.new_zeros(2 if both else 1, value.shape[1], attributes["hidden_size"])
    states = [zeros if state is None else state.contiguous() for state in arguments[5:7]]
    with_bias = arguments[3] is not None
    options = (_parameters(arguments, order), with_bias, 1, 0.0, False, both, False)
    if name == "GRU":
        every, *last = torch.gru(value, states[0], *options)
    else:
        every, *last = torch.lstm(value, states, *options)
    return [every.unflatten(2, (zeros.shape[0], -1)).transpose(1, 2), *last]  # [L, B, D*H] -> [L, D, B, H]


def gru(arguments: Sequence[Any], attributes: dict[str, Any], _: torch.device) -> list[Tensor]:
    """GRU with `linear_before_reset`, which is torch's own; forward or both directions."""
    if not attributes.get("linear_before_reset"):
        raise NotImplementedError("GRU with linear_before_reset 0; expected 1, as torch.nn.GRU computes")
    return _recurrent("GRU", arguments, attributes, _GRU_ORDER)


def lstm(arguments: Sequence[Any], attributes: dict[str, Any], _: torch.device) -> list[Tensor]:
    """LSTM, forward or both directions."""
    return _recurrent("LSTM", arguments, attributes, _LSTM_ORDER)


def conv(arguments: Sequence[Any], attributes: dict[str, Any], _: torch.device) -> Tensor:
    """Convolution [B, in, ...] -> [B, out, ...] over any number of dimensions, with explicit padding."""
    value, weight, *bias = arguments
    rank = value.ndim - 2
    auto_pad = attributes.get("auto_pad", "NOTSET")
    if auto_pad not in ("NOTSET", "VALID"):
        raise NotImplementedError(f"Conv with auto_pad {auto_pad}; expected NOTSET or VALID")
    pads = list(attributes.get("pads", [0] * 2 * rank))
    if any(pads):  # ONNX: all starts, then all ends; torch: start and end of the last dimension first
        value = functional.pad(value, [pads[place + end] for place in reversed(range(rank)) for end in (0, rank)])
    strides, dilations = (list(attributes.get(name, [1] * rank)) for name in ("strides", "dilations"))
    zeros, groups = [0] * rank, attributes.get("group", 1)
    return torch.convolution(value, weight, bias[0] if bias else None, strides, zeros, dilations, False, zeros, groups)


def batch_norm(arguments: Sequence[Any], attributes: dict[str, Any], _: torch.device) -> Tensor:
    """BatchNormalization with stored statistics: value [B, C, ...], scale, bias, mean and variance [C]."""
    if attributes.get("training_mode"):
        raise NotImplementedError("BatchNormalization with training_mode 1; expected 0: call eval() before the export")
    value, scale, bias, mean, variance = arguments
    return functional.batch_norm(value, mean, variance, scale, bias, eps=attributes.get("epsilon", 1e-5))


def layer_norm(arguments: Sequence[Any], attributes: dict[str, Any], _: torch.device) -> Tensor:
    """LayerNormalization over the dimensions from `axis` on: [..., *axes] -> the same shape."""
    value, scale, *rest = arguments
    shape = value.shape[attributes.get("axis", -1) :]
    bias = rest[0].reshape(shape) if rest and rest[0] is not None else None
    return functional.layer_norm(value, shape, scale.reshape(shape), bias, attributes.get("epsilon", 1e-5))


def gemm(arguments: Sequence[Any], attributes: dict[str, Any], _: torch.device) -> Tensor:
    """A product of two matrices with factors: [M, K], [K, N] -> [M, N]."""
    a, b = arguments[:2]
    a, b = (a.T if attributes.get("transA") else a), (b.T if attributes.get("transB") else b)
    product: Tensor = attributes.get("alpha", 1.0) * (a @ b)
    if len(arguments) < 3 or arguments[2] is None:
        return product
    return product + attributes.get("beta", 1.0) * arguments[2]
