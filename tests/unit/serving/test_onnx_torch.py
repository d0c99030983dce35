"""ONNX files in torch against onnxruntime: operator by operator, then whole scorers of every kind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from support import tiny_bundle

from nann.errors import BundleError, ScorerError
from nann.python_backend.engines.onnx_torch import OnnxTorchModule
from nann.python_backend.engines.onnx_torch_ops import OPERATORS
from nann.signature import SCORER, USER_ENCODER

OPSET = 20
STATE, WIDTH = 6, 3
FLOAT, INT = np.float32, np.int64


def arrays(*values) -> list[np.ndarray]:
    return [np.asarray(value, INT if np.asarray(value).dtype.kind == "i" else FLOAT) for value in values]


# Operator -> further inputs (constants) and attributes; the first input is the user state, float32[B, 6].
UNARY = ["Abs", "Ceil", "Cos", "Erf", "Exp", "Floor", "Identity", "Neg", "Relu", "Sigmoid", "Sign", "Sin", "Softplus",
         "Tanh", "Elu", "Gelu", "LeakyRelu", "LogSoftmax", "Softmax", "Reciprocal", "HardSwish", "Mish"]  # fmt: skip
ROW = np.linspace(-2, 2.5, STATE, dtype=FLOAT)
SQUARE = np.linspace(-1, 1, STATE * STATE, dtype=FLOAT).reshape(STATE, STATE)
CASES = [
    *((name, [], {}) for name in UNARY),
    *((name, [ROW], {}) for name in ("Add", "Sub", "Mul", "Div", "Max", "Min", "Sum", "PRelu")),
    ("Pow", arrays(2.0), {}),
    ("MatMul", [SQUARE], {}),
    ("Clip", arrays(-0.5, 0.7), {}),
    ("Clip", arrays(-0.5), {}),
    ("Gemm", [SQUARE, ROW], {"transB": 1, "alpha": 0.5, "beta": 2.0}),
    ("LayerNormalization", [ROW, ROW], {"epsilon": 1e-3}),
    ("Einsum", [SQUARE], {"equation": "bs,st->bt"}),
    ("Tile", arrays([1, 2]), {}),
    ("Concat", [], {"axis": 1}),
    ("Expand", arrays([1, STATE]), {}),
    ("Flatten", [], {"axis": 1}),
    ("Transpose", [], {"perm": [0, 1]}),
    ("Slice", arrays([1], [2**62], [1], [2]), {}),
    ("Gather", arrays([0, -1, 3]), {"axis": 1}),
    ("CumSum", arrays(1), {}),
    ("Reshape", arrays([0, -1]), {}),
    *(
        (f"Reduce{name}", arrays([1]), {"keepdims": 1})
        for name in ("Max", "Mean", "Min", "Sum", "L1", "L2", "LogSumExp", "SumSquare")
    ),
    ("Cast", [], {"to": TensorProto.FLOAT}),
]
# Operators that need another one before or after them: one graph each, in ONNX's text syntax.
GRAPHS = {
    "Log Sqrt": "a = Abs(user_state) b = Sqrt(a) c = Add(b, one) out = Log(c)",
    "Where and comparisons": (
        "g = Greater(user_state, zero) l = LessOrEqual(user_state, one) o = And(g, l) n = Not(o) "
        "e = GreaterOrEqual(user_state, one) x = Xor(n, e) y = Or(x, g) z = Less(user_state, zero) "
        "q = Equal(user_state, zero) w = Or(z, q) v = And(w, y) i = IsNaN(user_state) k = Or(v, i) "
        "out = Where(k, user_state, one)"
    ),
    "Shape, on the host": (
        "s = Shape(user_state) b = Gather<axis=0>(s, zero_index) m = Mul(b, two) h = Div(m, two) r = Mod(h, big) "
        "u = Unsqueeze(r, zero_axis) t = Concat<axis=0>(u, minus) out = Reshape(user_state, t)"
    ),
    "Range and ConstantOfShape": (
        "s = Shape<start=1, end=2>(user_state) n = Squeeze(s, zero_axis) r = Range(zero_index, n, one_index) "
        "f = Cast<to=1>(r) c = ConstantOfShape<value = float[1] {2.5}>(s) d = Mul(f, c) out = Add(user_state, d)"
    ),
    "Size, on the host": "n = Size(user_state) t = Unsqueeze(n, zero_axis) f = Reshape(user_state, t) "
    "out = Reshape(f, six)",
    "Split and Constant": (
        "a, b = Split<axis=1, num_outputs=2>(user_state) k = Constant<value = float[1] {0.5}>() c = Mul(a, k) "
        "out = Concat<axis=1>(c, b)"
    ),
    "Slice and casts on the host": (
        "s = Shape(user_state) t = Slice(s, zero_axis, one_axis) c = Cast<to=7>(t) r = Concat<axis=0>(c, minus) "
        "x = Cast<to=6>(candidates) y = Cast<to=1>(x) z = ReduceMean<keepdims=1>(y) w = Reshape(user_state, r) "
        "out = Add(w, z)"
    ),
}
CONSTANTS = {
    **{name: np.array(value, FLOAT) for name, value in {"zero": 0, "one": 1}.items()},
    **{name: np.array(value, INT) for name, value in {"zero_index": 0, "one_index": 1, "two": 2, "big": 1000}.items()},
    **{name: np.array([value], INT) for name, value in {"zero_axis": 0, "one_axis": 1, "minus": -1}.items()},
    "six": np.array([-1, STATE], INT),
}
# test_onnx_torch_layers.py tests these.
LAYERS = {"BatchNormalization", "Conv", "GRU", "GatherElements", "GatherND", "LSTM", "TopK", "Trilu"}


def save(path: Path, nodes: list[onnx.NodeProto], constants: dict[str, np.ndarray]) -> Path:
    inputs = {"user_state": (TensorProto.FLOAT, ["B", STATE]), "candidates": (TensorProto.INT32, ["B", "C"])}
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info(name, *spec) for name, spec in inputs.items()],
        [helper.make_tensor_value_info("candidate_scores", TensorProto.FLOAT, ["B", "X"])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=9)
    onnx.save(model, str(path))
    return path


def assert_as_onnxruntime(path: Path, spec=SCORER, feed=None, atol: float = 1e-5) -> None:
    rng = np.random.default_rng(0)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    feed = feed or {
        "user_state": rng.normal(size=(4, STATE)).astype(FLOAT),
        "candidates": rng.integers(-1, 9, (4, WIDTH)).astype(np.int32),
    }
    (expected,) = session.run(None, {value.name: feed[value.name] for value in session.get_inputs()})
    got = OnnxTorchModule(path, spec)({name: torch.from_numpy(value) for name, value in feed.items()})
    assert str(got.dtype).endswith(str(expected.dtype))
    np.testing.assert_allclose(got.numpy(), expected, rtol=1e-5, atol=atol)


@pytest.mark.parametrize(
    ("name", "inputs", "attributes"), CASES, ids=[f"{n}-{case[0]}" for n, case in enumerate(CASES)]
)
def test_an_operator(tmp_path, name, inputs, attributes):
    constants = {f"input{number}": value for number, value in enumerate(inputs)}
    node = helper.make_node(name, ["user_state", *constants], ["candidate_scores"], **attributes)
    assert_as_onnxruntime(save(tmp_path / "model.onnx", [node], constants))


@pytest.mark.parametrize("name", GRAPHS)
def test_operators_together(tmp_path, name):
    text = f"""<ir_version: 9, opset_import: ["" : {OPSET}]> g (float[B] user_state) => (float[B] out)
    {{ {GRAPHS[name]} }}"""
    nodes = list(onnx.parser.parse_model(text).graph.node)
    for node in nodes:
        node.output[:] = ["candidate_scores" if output == "out" else output for output in node.output]
    used = {value for node in nodes for value in node.input}
    assert_as_onnxruntime(
        save(tmp_path / "model.onnx", nodes, {name: value for name, value in CONSTANTS.items() if name in used})
    )


def test_every_operator_is_tested():
    tested = {case[0] for case in CASES}
    tested |= {node.op_type for text in GRAPHS.values() for node in _parsed(text)}
    assert set(OPERATORS) <= tested | LAYERS


def _parsed(text: str) -> list[onnx.NodeProto]:
    return list(onnx.parser.parse_graph(f"g (float[B] user_state) => (float[B] out) {{ {text} }}").node)


def test_an_unknown_operator_names_the_targets_that_know_it(tmp_path):
    node = helper.make_node("Selu", ["user_state"], ["candidate_scores"])
    with pytest.raises(
        BundleError, match=r"operator ai\.onnx\.Selu, which the target torch does not know; serve it with"
    ):
        OnnxTorchModule(save(tmp_path / "model.onnx", [node], {}), SCORER)


def test_what_is_no_onnx_file(tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"junk")
    with pytest.raises(BundleError, match=r"can't be read as ONNX: .*; run `nann export` again"):
        OnnxTorchModule(tmp_path / "model.onnx", SCORER)


@pytest.mark.parametrize(
    ("model", "spec", "message"),
    [
        (tiny_bundle.scorer(output="logits"), SCORER, "has no output candidate_scores"),
        (tiny_bundle.scorer(), USER_ENCODER, "has a tensor candidates; expected behaviors, profile_codes, user_state"),
        (tiny_bundle.scorer(output_type=TensorProto.DOUBLE), SCORER, "candidate_scores is float64; expected float32"),
    ],
)
def test_a_model_of_another_signature_is_refused(tmp_path, model, spec, message):
    onnx.save(model, str(tmp_path / "model.onnx"))
    with pytest.raises(BundleError, match=message):
        OnnxTorchModule(tmp_path / "model.onnx", spec)


def test_a_failing_run_names_the_tensors(tmp_path):
    node = helper.make_node("MatMul", ["user_state", "square"], ["candidate_scores"])
    module = OnnxTorchModule(save(tmp_path / "model.onnx", [node], {"square": SQUARE}), SCORER)
    with pytest.raises(
        ScorerError, match=r"scorer failed at candidate_scores \(user_state torch.float32\[2, 5\], square"
    ):
        module({"user_state": torch.zeros(2, 5)})


def test_a_shape_that_depends_on_values_is_refused(tmp_path):
    """Otherwise every run would wait for the device, and no CUDA graph could be captured."""
    nodes = [
        helper.make_node("Cast", ["candidates"], ["shape"], to=TensorProto.INT64),
        helper.make_node("Reshape", ["user_state", "shape"], ["candidate_scores"]),
    ]
    module = OnnxTorchModule(save(tmp_path / "model.onnx", nodes, {}), SCORER)
    with pytest.raises(ScorerError, match="a shape or an axis that depends on values"):
        module({"user_state": torch.zeros(1, 6), "candidates": torch.ones(1, 2, dtype=torch.int32)})
