"""`nann export`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nann.errors import ConfigError

from .support import (
    DEFAULT_BUNDLE,
    DEFAULT_CHECKPOINT,
    JsonOption,
    about_reachability,
    console,
    print_json,
)

if TYPE_CHECKING:
    from nann.bundle import Bundle


def export(
    data: Annotated[
        Path | None,
        typer.Option(help="Prepared data set that the checkpoint was trained on; a bundle of your own needs none."),
    ] = None,
    checkpoint: Annotated[Path, typer.Option(help="The checkpoint that was indexed.")] = DEFAULT_CHECKPOINT,
    bundle: Annotated[Path, typer.Option(help="Bundle, from `nann index`.")] = DEFAULT_BUNDLE,
    half: Annotated[
        bool, typer.Option("--half", help="Also a scorer in half precision, for the GPU targets tensorrt and torch.")
    ] = False,
    item_rows: Annotated[
        bool,
        typer.Option(
            "--item-rows",
            help="A scorer without an item table: callers send it a row of item_rows.npy for each candidate.",
        ),
    ] = False,
    json: JsonOption = False,
) -> None:
    """Export user encoder and scorer to ONNX into the bundle.

    The files are compared with torch at several shapes. After a mismatch the command fails and writes nothing.

    Then the search that the bundle recommends is measured on at most 32 validation users: the cheapest of a few
    settings that finds 99% of the exact top K. `nann tune` finds a cheaper one, on more users. The bundle keeps the
    best items of 16 of them, on which a server compares what may run the scorer (`nann serve --engine`).

    With --item-rows TensorRT plans outlive the corpus, and it may exceed the GPU's memory (docs/deploy.md).

    A bundle of your own modules (create_bundle and export_to_bundle in Python) holds its ONNX files already. For it,
    `nann export --half --bundle FOLDER` adds the scorer in half precision, and needs no data set and no checkpoint.
    """
    from nann.bundle import Bundle

    from ..training.search.pipeline import of_checkpoint

    opened = Bundle.open(bundle)
    body: dict[str, Any] = {"bundle": str(bundle)}
    if of_checkpoint(opened):
        body |= _export_checkpoint(data, checkpoint, opened, item_rows)
    elif item_rows or not half:
        raise ConfigError(
            f"{bundle} was not indexed from a checkpoint: export its modules in Python, with "
            "nann.training.export_to_bundle, which takes item_rows too; --half then adds the scorer in half precision"
        )
    if half:
        from ..training.export.half_precision import export_half

        halved = export_half(Bundle.open(bundle))
        console.print(
            f"scorer.fp16.onnx {halved.scorer_bytes / 1e6:.1f} MB; "
            f"scores differ by at most {halved.max_difference:.1e}, "
            f"{halved.coverage:.1%} of the exact top {halved.top_k} are the same"
        )
        body["half_precision"] = asdict(halved)
    if json:
        print_json(body)


def _export_checkpoint(data: Path | None, checkpoint: Path, bundle: Bundle, item_rows: bool) -> dict[str, Any]:
    """Exports a checkpoint's modules into its bundle and measures a search; returns what --json says of it."""
    from nann.bundle import Bundle

    from ..training.checkpoint import Checkpoint
    from ..training.data.prepared import PreparedData
    from ..training.search.default_search import recommend_search
    from ..training.search.pipeline import export_checkpoint
    from ..training.search.tune import describe

    if data is None:
        raise ConfigError("--data is missing; expected the prepared data set that the checkpoint was trained on")
    prepared = PreparedData.load(data)
    report = export_checkpoint(Checkpoint.load(checkpoint), prepared, bundle, item_rows=item_rows)
    exported = Bundle.open(bundle.path)
    rows = exported.item_rows
    console.print(
        f"user_encoder.onnx {report.user_encoder_bytes / 1e6:.1f} MB, scorer.onnx {report.scorer_bytes / 1e6:.1f} MB"
        f"{'' if rows is None else f', item_rows.npy {rows.base.nbytes / 1e6:.1f} MB'}; "
        f"onnxruntime differs from torch by at most {report.max_difference:.1e} (allowed {report.tolerance:.0e}) "
        f"at {report.shapes_checked} shapes; {about_reachability(exported)}"
    )
    search = recommend_search(exported, prepared)
    console.print(_about(search, describe(Bundle.open(bundle.path, files=[]).search_params)), highlight=False)
    return {**asdict(report), "search": search}


def _about(search: Mapping[str, Any] | None, described: str) -> str:
    """A line on the recommended search and how it was found."""
    from ..training.search.default_search import ENOUGH

    if search is not None and "given" in search:
        return f"search: {described}, as given to {search['by']}; not measured: `nann evaluate` does"

    if search is None:
        return f"search: {described}, as configured; not measured without validation users: find one with `nann tune`"
    line = (
        f"search: {described}: measured on {search['users']} validation users by {search['by']}, coverage "
        f"{search['coverage']:.2%}, {search['share_scored']:.2%} of the items scored, {search['seconds']:.0f} s"
    )
    if search["coverage"] < ENOUGH:
        line += "; too little of the exact list: a better search needs `nann tune`"
    return line
