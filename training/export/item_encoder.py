"""The item encoder: places an item by what describes it, as the model places items that training never saw."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.export import Dim

from nann.bundle import ITEM_ENCODER_FILE, ITEM_FIELDS_FILE, Bundle
from nann.durable_files import scratch_folder, write_json
from nann.errors import ScorerError
from nann.item_encoder import RunEncoder, run_session
from nann.score_agreement import TOLERANCE, Agreement
from nann.scorer import Int32Array
from nann.signature import ITEM_ENCODER, PADDING_ITEM, ModelSpec

from ..data.numbering import UNKNOWN_CATEGORY
from ..data.prepared import PreparedData
from ..models.kernel_scorer import KernelScorer
from ..models.layers import fix_slopes, fold_batch_norm
from ..models.scorer import AnyScorer
from ..scorers import onnx_session
from .kernel_modules import ROOM, KernelRowScorer, digit_count
from .onnx_file import export_module

_COMPARED_ITEMS = 256
"""How many items' rows are compared."""


class ItemEncoderModule(nn.Module):
    """item_codes int32[M, W] -> item_row float32[M, R], item_vector float32[M, d] and, with a light score, item_light.

    Args:
        model: with id dropout; a copy of it is kept, without what the outputs don't need.
    """

    def __init__(self, model: AnyScorer) -> None:
        super().__init__()
        self.model = copy.deepcopy(model).cpu().float().eval().requires_grad_(False)
        fold_batch_norm(self.model)
        fix_slopes(self.model)

    def forward(self, item_codes: Tensor) -> tuple[Tensor, ...]:
        """What a search needs of each item."""
        return self.outputs(self.model.described_vectors(item_codes))

    def outputs(self, vectors: Tensor) -> tuple[Tensor, ...]:
        """The outputs of items by their e_v, float[M, d]."""
        no_item = torch.full_like(vectors[:, 0], PADDING_ITEM, dtype=torch.int64)  # it is in no history
        rows = _rows(self.model, self.model.item_features(vectors, no_item))
        return (rows, vectors, self.model.light_items(vectors)) if self.model.has_light else (rows, vectors)

    @torch.inference_mode()
    def of_items(self, items: Tensor) -> tuple[Tensor, ...]:
        """The outputs of items of the model, int64[M], as if training had seen none of them."""
        without_ids = copy.deepcopy(self.model)
        assert without_ids.unknown_ids is not None
        without_ids.unknown_ids.unseen.fill_(True)
        return self.outputs(without_ids.item_vectors(items))


def _rows(model: AnyScorer, features: Any) -> Tensor:
    """As in the rows of `row_modules`: float[M, R]."""
    if isinstance(model, KernelScorer):
        return KernelRowScorer(model, features, digit_count(ROOM * model.item_count)).rows(features)
    return torch.cat([part for part in features if part is not None], dim=1)


def item_fields(data: PreparedData) -> dict[str, Any]:
    """How values become codes, for `nann.item_codes`: the codes of `build_model`'s attributes, then of categories."""
    fields, count = [], 0
    if data.item_attributes is not None:
        count = data.item_attributes.count
        for field in data.item_attributes.fields:
            first = int(field["first_code"])
            kept = {key: field[key] for key in ("name", "kind", "values", "edges", "left_out") if key in field}
            fields.append({**kept, "unknown_code": first, "first_value_code": first + 1})
    if data.category_count > 1:
        labels = list(data.category_labels)
        unknown = count + len(labels) - 1 if labels[-1] == UNKNOWN_CATEGORY else None
        category = {"name": "category", "kind": "category", "values": labels}
        fields.append({**category, "unknown_code": unknown, "first_value_code": count})
    table = data.manifest.get("reader", {}).get("items", {})
    return {"fields": fields, "separator": table.get("value_separator", "")}


def item_codes(data: PreparedData, items: Int32Array) -> Int32Array:
    """The codes of items of a data set, `int32[M]` -> `int32[M, W]`, padded with -1; as `item_fields` numbers them."""
    attributes = data.item_attributes
    rows: list[list[int]] = [[] for _ in items]
    if attributes is not None:
        bounds = zip(attributes.indptr[items].tolist(), attributes.indptr[items + 1].tolist(), strict=True)
        rows = [attributes.codes[first:end].tolist() for first, end in bounds]
    if data.category_count > 1:
        first = 0 if attributes is None else attributes.count
        rows = [[*row, first + int(data.item_categories[item])] for row, item in zip(rows, items, strict=True)]
    codes = np.full((len(rows), max(map(len, rows), default=0) or 1), PADDING_ITEM, np.int32)
    for place, row in zip(codes, rows, strict=True):
        place[: len(row)] = row
    return codes


def add_item_encoder(bundle: Bundle, model: AnyScorer, data: PreparedData) -> Bundle:
    """Writes the item encoder of a model with id dropout into its bundle, if onnxruntime agrees with torch.

    Raises:
        ScorerError: if it does not; the bundle is then as before.
    """
    module = ItemEncoderModule(model)
    some = np.linspace(0, data.item_count - 1, min(_COMPARED_ITEMS, data.item_count)).astype(np.int32)
    codes = item_codes(data, some)
    spec = (
        ITEM_ENCODER
        if model.has_light
        else ModelSpec(ITEM_ENCODER.name, ITEM_ENCODER.inputs, ITEM_ENCODER.outputs[:-1])
    )
    with scratch_folder(bundle.path / "item_encoder") as folder:
        path = folder / ITEM_ENCODER_FILE
        example = torch.from_numpy(np.repeat(codes[:2], 2, axis=1))  # a width of 1 would count as fixed
        export_module(module, (example,), spec, ({0: Dim("M"), 1: Dim("W")},), path)
        _check(module, onnx_encoder(path), codes, some)
        write_json(folder / ITEM_FIELDS_FILE, item_fields(data))
        written = [each.name for each in folder.iterdir()]
        for name in written:
            (folder / name).replace(bundle.path / name)
    return Bundle.open(bundle.path, files=[]).change(written=written)


def _check(module: ItemEncoderModule, run: RunEncoder, codes: Int32Array, items: Int32Array) -> None:
    """Compares the exported file with torch, and both with the model itself."""
    got = run(codes)
    with torch.inference_mode():
        in_torch = module(torch.from_numpy(codes))
    for name, encoded, own in zip(got, in_torch, module.of_items(torch.from_numpy(items).long()), strict=True):
        for what, expected in (("torch", encoded), ("the model itself", own)):
            agreement = Agreement.of(got[name], expected.numpy())
            if not agreement.error <= TOLERANCE:
                raise ScorerError(
                    f"{name} of the exported item encoder differs from {what} by {agreement.error:.2e} of its size; "
                    f"expected at most {TOLERANCE:.0e}: the export is not faithful and was not written"
                )


def onnx_encoder(path: Path, threads: int = 1) -> RunEncoder:
    """Runs an item encoder's ONNX file in onnxruntime."""
    return run_session(onnx_session(path, threads))
