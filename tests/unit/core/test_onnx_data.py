from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from nann.errors import BundleError
from nann.onnx_data import read_external_data

TABLE = np.arange(600, dtype=np.float32).reshape(200, 3)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A model with its table in a file beside it, which has a second hard link as in a model repository."""
    graph = helper.make_graph(
        [helper.make_node("Gather", ["table", "rows"], ["out"])],
        "test",
        [helper.make_tensor_value_info("rows", TensorProto.INT64, ["N"])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, ["N", 3])],
        [numpy_helper.from_array(TABLE, "table"), numpy_helper.from_array(np.float32(7), "inside")],
    )
    path = tmp_path / "scorer.onnx"
    model = helper.make_model(graph)
    onnx.save(model, str(path), save_as_external_data=True, location="scorer.onnx.data", size_threshold=100)
    os.link(tmp_path / "scorer.onnx.data", tmp_path / "second.data")
    return path


def test_it_is_read_though_it_has_two_hard_links(saved):
    model = onnx.load(str(saved), load_external_data=False)
    read_external_data(model, saved.parent)
    tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    np.testing.assert_array_equal(tensors["table"], TABLE)
    assert tensors["inside"] == 7
    onnx.checker.check_model(model)


@pytest.mark.parametrize("location", ["../scorer.onnx.data", "/etc/passwd", "missing.data"])
def test_a_file_elsewhere_is_refused(saved, location):
    model = onnx.load(str(saved), load_external_data=False)
    for entry in model.graph.initializer[0].external_data:
        entry.value = location if entry.key == "location" else entry.value
    with pytest.raises(BundleError, match=r"tensor table is in .*; expected a file beside the model"):
        read_external_data(model, saved.parent)


def test_a_file_that_ends_early_is_refused(saved):
    os.truncate(saved.with_name("scorer.onnx.data"), 100)
    with pytest.raises(BundleError, match=r"ends within tensor table; expected 2400 bytes at 0"):
        read_external_data(onnx.load(str(saved), load_external_data=False), saved.parent)
