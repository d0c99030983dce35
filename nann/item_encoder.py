"""Places items by what describes them: a bundle's item encoder, for items that training never saw."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from nann.bundle import ITEM_ENCODER_FILE, ITEM_FIELDS_FILE, Bundle
from nann.errors import BundleError
from nann.item_codes import ItemCodes
from nann.scorer import Float32Array, Int32Array
from nann.signature import ENCODED_LIGHT, ENCODED_ROW, ENCODED_VECTOR, ITEM_CODES

RunEncoder = Callable[[Int32Array], Mapping[str, Float32Array]]
"""Runs `item_encoder.onnx`: codes `int32[M, W]`, -1 = padding -> outputs by name (`nann.signature.ITEM_ENCODER`)."""


def run_session(session: Any) -> RunEncoder:
    """Runs it in a session of onnxruntime."""
    names = [output.name for output in session.get_outputs()]
    return lambda codes: dict(zip(names, session.run(names, {ITEM_CODES.name: codes}), strict=True))


class PlacedItems(NamedTuple):
    """What a search needs of M new items.

    Attributes:
        rows: `float32[M, R]`, what the scorer reads of each.
        light: `float32[M, d']`, their vectors for the light score; None where the bundle's model has none.
        vectors: `float32[M, d]`, e_v, on which the graph is built.
        unknown_values: how many of the attributes' values training did not see; they tell nothing of their items.
    """

    rows: Float32Array
    light: Float32Array | None
    vectors: Float32Array
    unknown_values: int


class ItemEncoder:
    """The item encoder of a bundle.

    Args:
        bundle: an exported bundle whose model was trained with id dropout.
        run: runs its ONNX file; which runtime does, the caller decides.

    Raises:
        BundleError: if the bundle has no item encoder.
    """

    def __init__(self, bundle: Bundle, run: RunEncoder) -> None:
        if ITEM_ENCODER_FILE not in bundle.manifest["files"]:
            raise BundleError(
                f"{bundle.path} has no {ITEM_ENCODER_FILE}, so new items can't be placed by their attributes: train "
                "with model.id_dropout above 0 on items that have categories or attributes, index and export again"
            )
        body = json.loads((bundle.path / ITEM_FIELDS_FILE).read_text(encoding="utf-8"))
        self.codes = ItemCodes.of(body, bundle.manifest.get("attributes", {}))
        self._run = run

    def encode(self, items: Sequence[Mapping[str, Any]]) -> PlacedItems:
        """Places items, given by value by attribute; see `ItemCodes.encode`, also for the errors."""
        coded = self.codes.encode(items)
        outputs = {name: np.ascontiguousarray(each) for name, each in self._run(coded.codes).items()}
        light = outputs.get(ENCODED_LIGHT.name)
        return PlacedItems(outputs[ENCODED_ROW.name], light, outputs[ENCODED_VECTOR.name], coded.unknown_values)
