"""A bundle of 30 items on a line. user_state is the behaviours; the nearest items to their mean score highest."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from nann.bundle import ITEM_IDS_FILE, ITEM_ROWS_FILE, LIGHT_VECTORS_FILE, Bundle, write_manifest
from nann.graph import HnswGraph, Layer
from nann.item_ids import TEXT
from nann.manifest import ID_KIND, sha256_of
from nann.plans import PLANS_FILE, PLANS_FORMAT_VERSION, onnx_hash, plan_file

ITEMS = 30
LENGTH = 4
SEARCH = {"top_k": 3, "ef": [3, 5], "rounds": [1, 8]}


def light_user(place: float) -> list[float]:
    """w_u of a user at this position: <w_u, x_v> = 2 v place - v^2, largest at the nearest item."""
    return [2 * place, 1.0]


def item_ids() -> np.ndarray:
    return np.arange(ITEMS, dtype=np.int64) * 10 + 100


SEEDED = {"top_k": 3, "ef": [6], "rounds": [2], "seeds": {"count": 4, "ef": 8}}
"""Defaults of requests with entry "seeds", where the bundle has a light score."""


def text_ids() -> list[str]:
    """Text ids of the same items, in the same order."""
    return [f"sku-{item}" for item in item_ids().tolist()]


def make_bundle(
    path: Path, *, onnx_files: bool = True, light: bool = False, texts: bool = False, **manifest: object
) -> Bundle:
    path.mkdir(parents=True)
    np.save(path / ITEM_IDS_FILE, TEXT.stored(text_ids()) if texts else item_ids())
    if texts:
        manifest = {ID_KIND: TEXT.name, **manifest}
    names = [ITEM_IDS_FILE, *line_graph().save(path)]
    if light:
        places = np.arange(ITEMS, dtype=np.float32)
        np.save(path / LIGHT_VECTORS_FILE, np.stack([places, -(places**2)], axis=1))
        names.append(LIGHT_VECTORS_FILE)
        manifest = {"search_by_entry": {"seeds": SEEDED}, **manifest}
    if onnx_files:
        onnx.save(user_encoder(), path / "user_encoder.onnx")
        onnx.save(scorer(), path / "scorer.onnx")
        names += ["user_encoder.onnx", "scorer.onnx"]
    body: dict[str, object] = {
        "item_count": ITEMS,
        "sequence_length": LENGTH,
        "profile_fields": [],
        "graph": {"entry_layer": 1, "hnsw_entry_point": 0, "layer_count": 2},
        "search": SEARCH,
        "export": {"user_state_width": LENGTH},
    }
    body |= manifest
    if width := body["export"].get("item_row_width", 0):
        np.save(path / ITEM_ROWS_FILE, np.repeat(np.arange(ITEMS, dtype=np.float32)[:, None], width, axis=1))
        names.append(ITEM_ROWS_FILE)
    write_manifest(path, body, names)
    return Bundle.open(path)


def make_plans(path: Path, bundle: Bundle) -> Path:
    """A folder as `nann build-engine` makes it; the content of the plans does not matter."""
    path.mkdir(parents=True)
    entries = {}
    for name in bundle.exported_models:
        (path / plan_file(name)).write_bytes(name.encode())
        onnx_file = f"{name}.onnx"
        entries[name] = {
            "sha256": sha256_of(path / plan_file(name)),
            "onnx_file": onnx_file,
            "onnx_sha256": onnx_hash(bundle, onnx_file),
        }
    manifest = {
        "format_version": PLANS_FORMAT_VERSION,
        "library": "tensorrt",
        "shape_grid": bundle.shape_grid.to_manifest(),
        "plans": entries,
    }
    (path / PLANS_FILE).write_text(json.dumps(manifest))
    return path


def line_graph() -> HnswGraph:
    """Every item is linked to the next; every tenth is on layer 1."""
    levels = np.zeros(ITEMS, np.uint8)
    levels[::10] = 1
    return HnswGraph((_line(np.arange(ITEMS)), _line(np.arange(0, ITEMS, 10))), levels, 1, 0)


def _line(members: np.ndarray) -> Layer:
    lists: list[list[int]] = [[] for _ in range(ITEMS)]
    for left, right in zip(members[:-1].tolist(), members[1:].tolist(), strict=True):
        lists[left].append(right)
        lists[right].append(left)
    indptr = np.cumsum([0, *map(len, lists)]).astype(np.int32)
    return Layer(indptr, np.concatenate(lists).astype(np.int32))


def user_encoder() -> onnx.ModelProto:
    """behaviors int32[B, LENGTH] -> user_state float32[B, LENGTH]."""
    return _model(
        [("Cast", ["behaviors"], "user_state", {"to": TensorProto.FLOAT})],
        {"behaviors": (TensorProto.INT32, ["B", LENGTH])},
        {"user_state": (TensorProto.FLOAT, ["B", LENGTH])},
    )


def scorer(output: str = "candidate_scores", output_type: int = TensorProto.FLOAT) -> onnx.ModelProto:
    """(user_state float32[B, LENGTH], candidates int32[B, C]) -> candidate_scores float32[B, C]."""
    return _model(
        [
            ("ReduceMean", ["user_state"], "mean", {"axes": [1], "keepdims": 1}),
            ("Cast", ["candidates"], "place", {"to": TensorProto.FLOAT}),
            ("Sub", ["place", "mean"], "difference"),
            ("Abs", ["difference"], "distance"),
            ("Neg", ["distance"], "nearness"),
            ("Cast", ["nearness"], output, {"to": output_type}),
        ],
        {"user_state": (TensorProto.FLOAT, ["B", LENGTH]), "candidates": (TensorProto.INT32, ["B", "C"])},
        {output: (output_type, ["B", "C"])},
    )


def _model(nodes: list, inputs: dict, outputs: dict) -> onnx.ModelProto:
    graph = helper.make_graph(
        [helper.make_node(op, args, [out], **(rest[0] if rest else {})) for op, args, out, *rest in nodes],
        "test",
        [helper.make_tensor_value_info(name, *spec) for name, spec in inputs.items()],
        [helper.make_tensor_value_info(name, *spec) for name, spec in outputs.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
