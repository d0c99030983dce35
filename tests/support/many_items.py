"""A bundle of many items that is made in seconds: its graph is a ring, so that only what does not search is tested."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx

from nann.bundle import ITEM_IDS_FILE, ITEM_NAMES_FILE, ITEM_ROWS_FILE, ITEM_VECTORS_FILE, Bundle, write_manifest
from nann.graph import HnswGraph, Layer
from nann.training.search.planted_bundle import mean_encoder
from support.live_bundle import DIM, SEQUENCE_LENGTH, scorer

_ABOVE = 1_000
"""Every so many items one is on layer 1."""


def make_bundle(path: Path, item_count: int) -> Bundle:
    """Names are three words and a number; vectors are random; the scorer is an inner product with item rows."""
    path.mkdir(parents=True)
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((item_count, DIM), np.float32)
    rows = np.pad(vectors, ((0, 0), (0, 1)))
    np.save(path / ITEM_IDS_FILE, np.arange(1, item_count + 1, dtype=np.int64))
    np.save(path / ITEM_VECTORS_FILE, vectors)
    np.save(path / ITEM_ROWS_FILE, rows)
    words = np.array(
        [f"{first}{second}" for first in "bdfgklmnprst" for second in ("a", "elo", "in", "ora", "ush", "yx")]
    )
    named = words[rng.integers(0, len(words), (item_count, 3))]
    (path / ITEM_NAMES_FILE).write_text(
        "".join(f"{' '.join(three)} {item}\n" for item, three in enumerate(named.tolist()))
    )
    onnx.save(mean_encoder(rows, SEQUENCE_LENGTH), path / "user_encoder.onnx")
    onnx.save(scorer(None), path / "scorer.onnx")
    graph = _graph(item_count)
    manifest = {
        "item_count": item_count,
        "vector_dim": DIM,
        "sequence_length": SEQUENCE_LENGTH,
        "profile_fields": [],
        "graph": {"entry_layer": graph.entry_layer, "hnsw_entry_point": 0, "layer_count": len(graph.layers)},
        "export": {"user_state_width": DIM + 1, "item_row_width": DIM + 1},
        "search": {"top_k": 20, "ef": [50, 100], "rounds": [1, 3]},
    }
    files = [ITEM_IDS_FILE, ITEM_VECTORS_FILE, ITEM_ROWS_FILE, ITEM_NAMES_FILE, "user_encoder.onnx", "scorer.onnx"]
    write_manifest(path, manifest, [*files, *graph.save(path)])
    return Bundle.open(path, ())


def _graph(item_count: int) -> HnswGraph:
    levels = np.zeros(item_count, np.uint8)
    levels[::_ABOVE] = 1
    return HnswGraph(
        (_ring(np.arange(item_count), item_count), _ring(np.arange(0, item_count, _ABOVE), item_count)), levels, 1, 0
    )


def _ring(members: np.ndarray, item_count: int) -> Layer:
    """Each of these items is linked to the two before and the two behind it."""
    around = np.stack([np.roll(members, shift) for shift in (-2, -1, 1, 2)], axis=1).astype(np.int32)
    degrees = np.zeros(item_count, np.int64)
    degrees[members] = 4
    return Layer(np.append(0, np.cumsum(degrees)).astype(np.int32), around.ravel())
