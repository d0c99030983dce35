"""A bundle of planted vectors with item rows, for what can't wait for training: scores are inner products."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from nann.bundle import (
    ITEM_IDS_FILE,
    ITEM_ROWS_FILE,
    ITEM_VECTORS_FILE,
    LIGHT_VECTORS_FILE,
    SCORER_FILE,
    USER_ENCODER_FILE,
    Bundle,
    write_manifest,
)
from nann.durable_files import new_folder
from nann.manifest import search_to_json
from nann.scorer import Float32Array

from .planted import EF_CONSTRUCTION, WIDTH, M, PlantedCorpus
from .recommended import seeded_search

TOP_K = 200
SEQUENCE_LENGTH = 8


def planted_bundle(folder: Path, cache: Path, item_count: int) -> Bundle:
    """Opens the bundle in `folder`; makes it first if necessary, with the corpus that `PlantedCorpus.cached` keeps.

    Ids are indices + 1. A user is the mean vector of the history; rows and light vectors are the items' vectors.
    """
    if not folder.is_dir():
        corpus = PlantedCorpus.cached(cache, item_count)
        graph, vectors = corpus.graph, np.asarray(corpus.vectors)
        with new_folder(folder) as made:
            np.save(made / ITEM_IDS_FILE, np.arange(1, item_count + 1, dtype=np.int64))
            for name in (ITEM_VECTORS_FILE, LIGHT_VECTORS_FILE, ITEM_ROWS_FILE):
                np.save(made / name, vectors)
            onnx.save(mean_encoder(vectors, SEQUENCE_LENGTH), made / USER_ENCODER_FILE)
            onnx.save(_scorer(), made / SCORER_FILE)
            manifest = {
                "item_count": item_count,
                "vector_dim": WIDTH,
                "sequence_length": SEQUENCE_LENGTH,
                "profile_fields": [],
                "graph": {
                    "m": M,
                    "ef_construction": EF_CONSTRUCTION,
                    "entry_layer": graph.entry_layer,
                    "hnsw_entry_point": graph.hnsw_entry_point,
                    "layer_count": len(graph.layers),
                },
                "export": {"user_state_width": WIDTH, "item_row_width": WIDTH},
                "search": search_to_json(seeded_search(TOP_K, item_count)),
            }
            names = [ITEM_IDS_FILE, ITEM_VECTORS_FILE, LIGHT_VECTORS_FILE, ITEM_ROWS_FILE]
            write_manifest(made, manifest, [*names, USER_ENCODER_FILE, SCORER_FILE, *graph.save(made)])
    return Bundle.open(folder, files=[])


def mean_encoder(table: Float32Array, sequence_length: int) -> onnx.ModelProto:
    """Behaviors int32[B, L] -> user_state float32[B, S], the mean row of the known ones; `table` is float32[N, S]."""
    constants = {
        "table": table,
        "zero": np.array(0, np.int32),
        "one": np.array(1, np.float32),
        "axis1": np.array([1], np.int64),
        "axis2": np.array([2], np.int64),
    }
    nodes = [
        ("GreaterOrEqual", ["behaviors", "zero"], "known"),
        ("Cast", ["known"], "mask", {"to": TensorProto.FLOAT}),
        ("Max", ["behaviors", "zero"], "items"),
        ("Gather", ["table", "items"], "rows"),
        ("Unsqueeze", ["mask", "axis2"], "weights"),
        ("Mul", ["rows", "weights"], "masked"),
        ("ReduceSum", ["masked", "axis1"], "total", {"keepdims": 0}),
        ("ReduceSum", ["mask", "axis1"], "counted", {"keepdims": 1}),
        ("Max", ["counted", "one"], "count"),
        ("Div", ["total", "count"], "user_state"),
    ]
    inputs = {"behaviors": (TensorProto.INT32, ["B", sequence_length])}
    return onnx_model(nodes, constants, inputs, {"user_state": (TensorProto.FLOAT, ["B", table.shape[1]])})


def _scorer() -> onnx.ModelProto:
    """(user_state float32[B, d], candidate_rows float32[B, C, d]) -> candidate_scores float32[B, C]."""
    nodes = [
        ("Unsqueeze", ["user_state", "axis2"], "column"),
        ("MatMul", ["candidate_rows", "column"], "dots"),
        ("Squeeze", ["dots", "axis2"], "candidate_scores"),
    ]
    inputs = {
        "user_state": (TensorProto.FLOAT, ["B", WIDTH]),
        "candidate_rows": (TensorProto.FLOAT, ["B", "C", WIDTH]),
    }
    outputs = {"candidate_scores": (TensorProto.FLOAT, ["B", "C"])}
    return onnx_model(nodes, {"axis2": np.array([2], np.int64)}, inputs, outputs)


def onnx_model(
    nodes: list[Any], constants: dict[str, Any], inputs: dict[str, Any], outputs: dict[str, Any]
) -> onnx.ModelProto:
    """A checked model of nodes (operator, inputs, output[, attributes]); inputs and outputs by name: type and shape."""
    graph = helper.make_graph(
        [helper.make_node(op, args, [out], **(rest[0] if rest else {})) for op, args, out, *rest in nodes],
        "planted",
        [helper.make_tensor_value_info(name, *spec) for name, spec in inputs.items()],
        [helper.make_tensor_value_info(name, *spec) for name, spec in outputs.items()],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    return model
