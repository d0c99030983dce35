"""A small bundle without torch: random vectors, hnswlib's graph, and hand-made ONNX files.

user_state = mean of the behaviours' vectors; score = dot product; light score = dot product
with blurred item vectors. Two items cause errors on purpose: a user with only `NAN_INDEX` in the history gets NaN
scores, and a user with only `FAILING_INDEX` makes the scorer fail. Items have attributes, for filters.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto

from nann.bundle import (
    ITEM_IDS_FILE,
    ITEM_NAMES_FILE,
    ITEM_ROWS_FILE,
    ITEM_VECTORS_FILE,
    LIGHT_VECTORS_FILE,
    Bundle,
    write_manifest,
)
from nann.item_ids import TEXT
from nann.manifest import ID_KIND, search_to_json
from nann.search_params import SearchParams, SeedParams
from nann.training.config import IndexConfig
from nann.training.data.item_columns import catalogue_of
from nann.training.search.index import build_hnsw, graph_from_hnswlib
from nann.training.search.planted_bundle import mean_encoder, onnx_model

ITEMS = 4000
DIM = 16
SEQUENCE_LENGTH = 12
NAN_INDEX = 7
FAILING_INDEX = 8
SEEDED = SearchParams(20, (60,), (3,), SeedParams(50, 100))
"""Defaults of requests with entry "seeds"."""


def item_ids() -> np.ndarray:
    """`int64[ITEMS]`: external ids that differ from the indices and have gaps."""
    return np.arange(ITEMS, dtype=np.int64) * 3 + 1000


def attributes() -> dict[str, list]:
    """Values of each item, by attribute; every eleventh item has no price."""
    items = range(ITEMS)
    return {
        "department": [("GROCERY", "PRODUCE", "DRUG GM")[item % 3] for item in items],
        "brand": [("National", "Private")[item % 4 == 3] for item in items],
        "price": [None if item % 11 == 0 else (item * 7 % 1000) / 10 for item in items],
        "available": [item % 2 == 0 for item in items],
        "tag": [["new"] * (item % 5 == 0) + ["adult"] * (item % 50 == 10) for item in items],
    }


NAMED = {"available_de": "price < 10 and available"}
"""The filter that the bundle offers."""


def text_ids() -> list[str]:
    """Text ids of the same items, in the same order; some look like numbers."""
    heads = ("00", "B0", "sku-", "été ", "日本/")
    return [f"{heads[index * len(heads) // ITEMS]}{item:05}" for index, item in enumerate(item_ids().tolist())]


def make_bundle(path: Path, seed: int = 1, *, texts: bool = False, item_rows: bool = False) -> Bundle:
    """A complete bundle, with text ids if `texts`; its scorer has an item table, or item rows of the same numbers."""
    path.mkdir(parents=True)
    vectors = np.random.default_rng(seed).normal(size=(ITEMS, DIM)).astype(np.float32)
    graph = graph_from_hnswlib(build_hnsw(vectors, IndexConfig(m=16), threads=1), entry_layer=2)
    np.save(path / ITEM_IDS_FILE, TEXT.stored(text_ids()) if texts else item_ids())
    np.save(path / ITEM_VECTORS_FILE, vectors)
    blur = np.random.default_rng(2).normal(scale=0.3, size=vectors.shape).astype(np.float32)
    np.save(path / LIGHT_VECTORS_FILE, np.pad(vectors + blur, ((0, 0), (0, 1))))
    (path / ITEM_NAMES_FILE).write_text("".join(f"item {index}\n" for index in range(ITEMS)), encoding="utf-8")
    onnx.save(user_encoder(vectors), path / "user_encoder.onnx")
    onnx.save(scorer(None if item_rows else vectors), path / "scorer.onnx")
    if item_rows:
        np.save(path / ITEM_ROWS_FILE, np.pad(vectors, ((0, 0), (0, 1))))
    layers = graph.entry_layer + 1
    columns, of_attributes = catalogue_of(attributes(), ITEMS).save(path)
    manifest = {
        **({ID_KIND: TEXT.name} if texts else {}),
        "item_count": ITEMS,
        "vector_dim": DIM,
        "sequence_length": SEQUENCE_LENGTH,
        "profile_fields": [],
        "graph": {
            "entry_layer": graph.entry_layer,
            "hnsw_entry_point": graph.hnsw_entry_point,
            "layer_count": len(graph.layers),
        },
        "export": {"user_state_width": DIM + 1, "item_row_width": (DIM + 1) * item_rows},
        "search": {"top_k": 20, "ef": [20, 40, 60][-layers:], "rounds": [1, 2, 4][-layers:]},
        "search_by_entry": {"seeds": search_to_json(SEEDED)},
        "attributes": columns,
        "filters": NAMED,
    }
    names = [
        *of_attributes,
        ITEM_IDS_FILE,
        ITEM_VECTORS_FILE,
        ITEM_NAMES_FILE,
        LIGHT_VECTORS_FILE,
        "user_encoder.onnx",
        "scorer.onnx",
        *[ITEM_ROWS_FILE] * item_rows,
    ]
    write_manifest(path, manifest, [*names, *graph.save(path)]).note(created="2026-01-02T03:04:05+00:00")
    return Bundle.open(path)


def user_encoder(vectors: np.ndarray) -> onnx.ModelProto:
    """behaviors int32[B, L] -> user_state float32[B, DIM + 1]; it does not read profile_codes."""
    table = np.pad(vectors, ((0, 0), (0, 1)))
    table[NAN_INDEX, 0] = np.nan
    table[FAILING_INDEX, -1] = 1
    return mean_encoder(table, SEQUENCE_LENGTH)


def scorer(vectors: np.ndarray | None) -> onnx.ModelProto:
    """(user_state float32[B, DIM + 1], candidates int32[B, C]) -> candidate_scores float32[B, C].

    Without vectors it takes their rows: candidate_rows float32[B, C, DIM + 1].
    """
    constants = {
        "axis2": np.array([2], np.int64),
        "last": np.array(DIM, np.int64),
        "one_row": np.zeros(1, np.float32),
        "axis1": np.array([1], np.int64),
    }
    given, rows, look_up = ("candidate_rows", (TensorProto.FLOAT, ["B", "C", DIM + 1])), "candidate_rows", []
    if vectors is not None:
        constants |= {"table": np.pad(vectors, ((0, 0), (0, 1))), "zero": np.array(0, np.int32)}
        given, rows = ("candidates", (TensorProto.INT32, ["B", "C"])), "rows"
        look_up = [("Max", ["candidates", "zero"], "items"), ("Gather", ["table", "items"], "rows")]
    nodes = [
        *look_up,
        ("Unsqueeze", ["user_state", "axis2"], "column"),
        ("MatMul", [rows, "column"], "dots"),
        ("Squeeze", ["dots", "axis2"], "scores"),
        # Row 0 for every user, but out of bounds, so that the model fails, for a user with only FAILING_INDEX.
        ("Gather", ["user_state", "last"], "poison", {"axis": 1}),
        ("Cast", ["poison"], "row", {"to": TensorProto.INT64}),
        ("Gather", ["one_row", "row"], "nothing"),
        ("Unsqueeze", ["nothing", "axis1"], "nothing_each"),
        ("Add", ["scores", "nothing_each"], "candidate_scores"),
    ]
    return onnx_model(
        nodes,
        constants,
        {"user_state": (TensorProto.FLOAT, ["B", DIM + 1]), given[0]: given[1]},
        {"candidate_scores": (TensorProto.FLOAT, ["B", "C"])},
    )
