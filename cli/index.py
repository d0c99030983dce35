"""`nann index`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from nann.errors import ConfigError
from nann.search_params import SEARCH_PARAMETERS, SearchOptions

from .support import (
    DEFAULT_BUNDLE,
    DEFAULT_CHECKPOINT,
    JsonOption,
    TrainedDataOption,
    about_reachability,
    console,
    print_json,
    with_search_options,
)


@with_search_options(SEARCH_PARAMETERS)
def index(
    data: TrainedDataOption,
    checkpoint: Annotated[
        Path, typer.Option(help="From `nann train`: checkpoint.pt of the last step, or best.pt.")
    ] = DEFAULT_CHECKPOINT,
    out: Annotated[Path, typer.Option(help="Folder of the bundle.")] = DEFAULT_BUNDLE,
    named_filter: Annotated[
        list[str] | None,
        typer.Option(
            help="A filter that the bundle offers to requests under a name; may be repeated.", metavar="NAME=FILTER"
        ),
    ] = None,
    journal_sequence: Annotated[
        int,
        typer.Option(
            min=0, help="Last change of the served items that the data has: `sequence` of `nann items status`."
        ),
    ] = 0,
    threads: Annotated[int, typer.Option(help="hnswlib's threads. 1: a reproducible graph; -1: all cores.")] = -1,
    json: JsonOption = False,
    **search: Any,
) -> None:
    """Build the HNSW graph on the item vectors, as the first part of a bundle.

    The bundle is one folder with everything that serving needs. `nann export` adds the ONNX models to it.

    The search options are what the bundle recommends to the server, instead of the configuration's `search`. Without
    them, or with --top-k alone, `nann export` measures a search. `search` in the configuration is for entry layers: a
    model with a light score is entered by seeds, unless --entry says otherwise.
    """
    from nann.manifest import search_to_json

    from ..training.checkpoint import Checkpoint
    from ..training.data.prepared import PreparedData
    from ..training.search.pipeline import index_checkpoint
    from ..training.search.tune import describe

    asked = SearchOptions(**search)
    filters = _named_filters(named_filter or [])
    loaded = PreparedData.load(data)
    bundle = index_checkpoint(Checkpoint.load(checkpoint), loaded, out, asked=asked, filters=filters, threads=threads)
    if journal_sequence:
        bundle = bundle.change(journal_sequence=journal_sequence)
    graph = bundle.manifest["graph"]
    console.print(
        f"bundle {out}: {bundle.item_count:,} items, layers {graph['layer_sizes']}, "
        f"mean ground degree {graph['mean_ground_degree']}; {about_reachability(bundle)}"
    )
    console.print(f"search: {describe(bundle.search_params)} (entry {bundle.search_params.entry})", highlight=False)
    if json:
        body = {"bundle_id": bundle.bundle_id, "item_count": bundle.item_count, "graph": graph}
        body["search"] = search_to_json(bundle.search_params)
        print_json({"bundle": str(out), **body, "reachability": bundle.notes["reachability"]})


def _named_filters(given: Iterable[str]) -> dict[str, str]:
    """Reads NAME=FILTER.

    Raises:
        ConfigError: if there is no "=", or a name twice.
    """
    found: dict[str, str] = {}
    for each in given:
        name, equals, text = each.partition("=")
        if not equals or name in found:
            raise ConfigError(f"--named-filter is {each!r}; expected NAME=FILTER, each name once")
        found[name] = text
    return found
