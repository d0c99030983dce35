"""The tiny bundle with attributes, and with a scorer that takes item rows as far as its manifest says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nann.bundle import Bundle
from nann.training.data.item_columns import catalogue_of
from support import tiny_bundle
from support.filter_oracle import ATTRIBUTES
from support.filter_oracle import ITEMS as DESCRIBED

ITEMS = tiny_bundle.ITEMS
IDS = tiny_bundle.item_ids().tolist()
OF_ITEMS: list[dict[str, Any]] = DESCRIBED[:ITEMS]
"""The attributes of each item."""
ROW_WIDTH, LIGHT_WIDTH, VECTOR_WIDTH = 3, 2, 4


def make_bundle(path: Path, *, onnx_files: bool = True, **manifest: object) -> Bundle:
    export = {"user_state_width": tiny_bundle.LENGTH, "item_row_width": ROW_WIDTH}
    made = {"export": export, "vector_dim": VECTOR_WIDTH, **manifest}
    bundle = tiny_bundle.make_bundle(path, onnx_files=onnx_files, light=True, **made)
    attributes = {name: values[:ITEMS] for name, values in ATTRIBUTES.items()}
    entries, files = catalogue_of(attributes, ITEMS).save(path)
    return bundle.change(written=files, attributes=entries)
