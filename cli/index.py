"""`nann index`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .support import (
    DEFAULT_BUNDLE,
    DEFAULT_CHECKPOINT,
    JsonOption,
    TrainedDataOption,
    about_reachability,
    console,
    print_json,
)


def index(
    data: TrainedDataOption,
    checkpoint: Annotated[
        Path, typer.Option(help="From `nann train`: checkpoint.pt of the last step, or best.pt.")
    ] = DEFAULT_CHECKPOINT,
    out: Annotated[Path, typer.Option(help="Folder of the bundle.")] = DEFAULT_BUNDLE,
    threads: Annotated[int, typer.Option(help="hnswlib's threads. 1: a reproducible graph; -1: all cores.")] = -1,
    json: JsonOption = False,
) -> None:
    """Build the HNSW graph on the item vectors, as the first part of a bundle.

    The bundle is one folder with everything that serving needs. `nann export` adds the ONNX models to it.
    """
    from ..training.checkpoint import Checkpoint
    from ..training.data.prepared import PreparedData
    from ..training.search.pipeline import index_checkpoint

    bundle = index_checkpoint(Checkpoint.load(checkpoint), PreparedData.load(data), out, threads=threads)
    graph = bundle.manifest["graph"]
    console.print(
        f"bundle {out}: {bundle.item_count:,} items, layers {graph['layer_sizes']}, "
        f"mean ground degree {graph['mean_ground_degree']}; {about_reachability(bundle)}"
    )
    if json:
        body = {"bundle_id": bundle.bundle_id, "item_count": bundle.item_count, "graph": graph}
        print_json({"bundle": str(out), **body, "reachability": bundle.notes["reachability"]})
