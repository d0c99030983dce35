"""ONNX layers with weights and gathers in torch against onnxruntime, at random shapes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import helper, numpy_helper

from nann.errors import ScorerError
from nann.python_backend.engines.onnx_torch import OnnxTorchModule
from nann.signature import ModelSpec, TensorSpec

OPSET = 20
SEEDS = range(4)
Case = tuple[np.ndarray, dict[str, np.ndarray], dict[str, Any]]


def floats(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.normal(size=shape).astype(np.float32)


def recurrent(rng: np.random.Generator, gates: int) -> Case:
    length, users, width, hidden, directions = (int(number) for number in rng.integers(1, [7, 5, 6, 6, 3]))
    weights = {
        "w": floats(rng, directions, gates * hidden, width),
        "r": floats(rng, directions, gates * hidden, hidden),
    }
    if rng.random() < 0.7:
        weights["b"] = floats(rng, directions, 2 * gates * hidden)
        if rng.random() < 0.7:
            weights |= {"": None, "h": floats(rng, directions, users, hidden)}
            if gates == 4:
                weights["c"] = floats(rng, directions, users, hidden)
    attributes = {"hidden_size": hidden, "direction": ["forward", "bidirectional"][directions - 1]}
    return floats(rng, length, users, width), weights, attributes


def gru_case(rng: np.random.Generator) -> Case:
    value, weights, attributes = recurrent(rng, 3)
    return value, weights, {**attributes, "linear_before_reset": 1}


def lstm_case(rng: np.random.Generator) -> Case:
    return recurrent(rng, 4)


def conv_case(rng: np.random.Generator) -> Case:
    rank, groups = int(rng.integers(1, 3)), int(rng.integers(1, 4))
    kernel, strides, dilations = (rng.integers(1, 4, rank).tolist() for _ in range(3))
    value = floats(rng, 2, 2 * groups, *rng.integers(8, 12, rank))
    weights = {"w": floats(rng, 3 * groups, 2, *kernel), "b": floats(rng, 3 * groups)}
    pads = rng.integers(0, 3, 2 * rank).tolist()
    return value, weights, {"group": groups, "strides": strides, "dilations": dilations, "pads": pads}


def batch_norm_case(rng: np.random.Generator) -> Case:
    shape = rng.integers(2, 6, rng.integers(2, 5)).tolist()
    names = ("scale", "bias", "mean", "variance")
    return floats(rng, *shape), {name: np.abs(floats(rng, shape[1])) for name in names}, {"epsilon": 1e-3}


def gather_nd_case(rng: np.random.Generator) -> Case:
    batch, depth = int(rng.integers(0, 3)), int(rng.integers(1, 3))
    shape = rng.integers(2, 5, 4).tolist()
    sizes = shape[batch : batch + depth]
    indices = rng.integers(np.negative(sizes), sizes, (*shape[:batch], 3, depth))
    return floats(rng, *shape), {"i": indices}, {"batch_dims": batch}


def gather_elements_case(rng: np.random.Generator) -> Case:
    shape, axis = rng.integers(2, 6, 3).tolist(), int(rng.integers(0, 3))
    return floats(rng, *shape), {"i": rng.integers(-shape[axis], shape[axis], shape)}, {"axis": axis}


def trilu_case(rng: np.random.Generator) -> Case:
    return floats(rng, 2, 4, 5), {"k": rng.integers(-3, 4)}, {"upper": int(rng.integers(0, 2))}


def top_k_case(rng: np.random.Generator) -> Case:
    axis = int(rng.integers(0, 3))
    return floats(rng, 4, 5, 6), {"k": rng.integers(1, 4, 1)}, {"axis": axis, "largest": int(rng.integers(0, 2))}


CASES = {
    "BatchNormalization": batch_norm_case, "Conv": conv_case, "GRU": gru_case, "GatherElements": gather_elements_case,
    "GatherND": gather_nd_case, "LSTM": lstm_case, "TopK": top_k_case, "Trilu": trilu_case,
}  # fmt: skip
OUTPUTS = {"GRU": 2, "LSTM": 3, "TopK": 2}


def written(path: Path, name: str, case: Case, output: int) -> ModelSpec:
    """One node; its output number `output` is the model's."""
    value, weights, attributes = case
    outputs = [f"out{number}" if number == output else f"other{number}" for number in range(OUTPUTS.get(name, 1))]
    node = helper.make_node(name, ["x", *weights], outputs, **attributes)
    integers = (name, output) == ("TopK", 1)
    kind, dtype = (onnx.TensorProto.INT64, np.int64) if integers else (onnx.TensorProto.FLOAT, np.float32)
    graph = helper.make_graph(
        [node],
        "test",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, value.shape)],
        [helper.make_tensor_value_info(outputs[output], kind, None)],
        [numpy_helper.from_array(np.asarray(weight), key) for key, weight in weights.items() if key],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=9), str(path))
    tensors = (TensorSpec("x", np.dtype(np.float32), value.shape[1:]), TensorSpec(outputs[output], np.dtype(dtype), ()))
    return ModelSpec("test", tensors[:1], tensors[1:])


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", CASES)
def test_as_onnxruntime_at_random_shapes(tmp_path, name, seed):
    case = CASES[name](np.random.default_rng(seed))
    for output in range(OUTPUTS.get(name, 1)):
        path = tmp_path / f"{output}.onnx"
        spec = written(path, name, case, output)
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        (expected,) = session.run(None, {"x": case[0]})
        got = OnnxTorchModule(path, spec)({"x": torch.from_numpy(case[0])})
        np.testing.assert_allclose(got.numpy(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("GRU", {"linear_before_reset": 0}, "GRU with linear_before_reset 0; expected 1, as torch.nn.GRU computes"),
        ("GRU", {"layout": 1}, "GRU with layout 1; expected the default"),
        ("LSTM", {"clip": 2.0}, "LSTM with clip 2.0; expected the default"),
        ("LSTM", {"direction": "reverse"}, "LSTM with direction reverse; expected forward or bidirectional"),
        ("Conv", {"auto_pad": "SAME_UPPER"}, "Conv with auto_pad SAME_UPPER; expected NOTSET or VALID"),
        ("BatchNormalization", {"training_mode": 1}, "training_mode 1; expected 0: call eval"),
    ],
)
def test_an_attribute_that_is_not_computed_is_refused_by_name(tmp_path, name, change, message):
    value, weights, attributes = CASES[name](np.random.default_rng(0))
    spec = written(tmp_path / "model.onnx", name, (value, weights, {**attributes, **change}), 0)
    with pytest.raises(ScorerError, match=message):
        OnnxTorchModule(tmp_path / "model.onnx", spec)({"x": torch.from_numpy(value)})


def test_sequence_lens_are_refused(tmp_path):
    value, weights, attributes = gru_case(np.random.default_rng(0))
    lengths = {"w": weights["w"], "r": weights["r"], "": None, "n": np.ones(value.shape[1], np.int32)}
    spec = written(tmp_path / "model.onnx", "GRU", (value, lengths, attributes), 0)
    with pytest.raises(ScorerError, match="GRU with sequence_lens or peepholes; expected neither"):
        OnnxTorchModule(tmp_path / "model.onnx", spec)({"x": torch.from_numpy(value)})
