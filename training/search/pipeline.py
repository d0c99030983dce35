"""From a checkpoint to a bundle: the steps of `nann index` and `nann export`."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from rich.console import Console
from rich.progress import Progress

from nann.bundle import Bundle
from nann.errors import BundleError
from nann.search_params import SearchOptions

from ..checkpoint import Checkpoint
from ..data.prepared import PreparedData
from ..export.item_encoder import add_item_encoder
from ..export.onnx_export import ExportReport, export_to_bundle
from ..export.serving_modules import item_vectors, light_vectors, row_modules, serving_modules
from .index import create_bundle


def index_checkpoint(
    checkpoint: Checkpoint,
    data: PreparedData,
    out: Path,
    *,
    asked: SearchOptions | None = None,
    filters: Mapping[str, str] = MappingProxyType({}),
    threads: int = -1,
) -> Bundle:
    """Builds a bundle with the item vectors of a trained scorer and their HNSW graph.

    `asked` is what the bundle's default search has instead of the configuration's. If it is more than a top_k, the
    bundle counts as tuned: `nann export` measures no other search. `filters` are those that it offers under a name.

    Raises:
        ConfigError, DataError: if the checkpoint was not trained on the data, or there are fewer items than top_k.
        FilterError: if a filter does not fit the items' attributes.
    """
    checkpoint.check_trained_on(data)
    model = checkpoint.restore(data)
    config = checkpoint.config
    light = light_vectors(model)
    asked = asked or SearchOptions()
    with Progress(console=Console(stderr=True)) as progress:
        bundle = create_bundle(
            out,
            item_ids=data.item_ids,
            item_vectors=item_vectors(model).numpy(),
            sequence_length=config.model.sequence_length,
            index=config.index,
            search=config.search,
            asked=asked,
            light_vectors=None if light is None else light.numpy(),
            item_names=data.item_names,
            attributes={} if data.attributes is None else data.attributes.to_dict(),
            filters=filters,
            profile_fields=data.profile_fields if config.model.profile else (),
            provenance={
                "weights": weights_hash(checkpoint),
                "step": checkpoint.step,
                "config": config.model_dump(mode="json"),
                "data": {
                    "identity": data.identity,
                    **{key: data.manifest[key] for key in ("name", "counts") if key in data.manifest},
                },
            },
            threads=threads,
            progress=progress,
        )
    given = asked.to_parameters()
    if given.keys() - {"top_k"}:
        bundle.note(tuning={"by": "nann index", "given": given})
    return bundle


def of_checkpoint(bundle: Bundle) -> bool:
    """Whether a bundle was indexed from a checkpoint; one of a user's own modules was not."""
    return "weights" in bundle.notes.get("provenance", {})


def export_checkpoint(
    checkpoint: Checkpoint, data: PreparedData, bundle: Bundle, *, item_rows: bool = False
) -> ExportReport:
    """Exports the scorer whose vectors the bundle's graph was built on: with an item table, or with item rows.

    With id dropout it exports the item encoder too.

    Raises:
        BundleError: if the bundle was made from another checkpoint.
        ScorerError: if the ONNX files do not agree with torch.
    """
    indexed, given = bundle.notes.get("provenance", {}).get("weights"), weights_hash(checkpoint)
    if indexed != given:
        raise BundleError(
            f"{bundle.path} was indexed from another checkpoint (weights {indexed}; this one has {given}): "
            "a graph and a scorer must come from the same weights; run `nann index` with this checkpoint"
        )
    checkpoint.check_trained_on(data)
    model = checkpoint.restore(data)
    report = export_to_bundle(bundle, *(row_modules if item_rows else serving_modules)(model))
    if model.unknown_ids is not None:
        add_item_encoder(Bundle.open(bundle.path, files=[]), model, data)
    return report


def weights_hash(checkpoint: Checkpoint) -> str:
    """Short hash of all weights, to tell checkpoints apart."""
    digest = hashlib.sha256()
    for name, weights in sorted(checkpoint.model.items()):
        digest.update(name.encode())
        digest.update(weights.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
