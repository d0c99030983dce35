"""`nann export`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

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


def export(
    data: TrainedDataOption,
    checkpoint: Annotated[Path, typer.Option(help="The checkpoint that was indexed.")] = DEFAULT_CHECKPOINT,
    bundle: Annotated[Path, typer.Option(help="Bundle, from `nann index`.")] = DEFAULT_BUNDLE,
    half: Annotated[
        bool, typer.Option("--half", help="Also a scorer in half precision, for the GPU targets tensorrt and torch.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Export user encoder and scorer to ONNX into the bundle.

    The files are compared with torch at several shapes. After a mismatch the command fails and writes nothing.

    Then the search that the bundle recommends is measured on at most 32 validation users: the cheapest of a few
    settings that finds 99% of the exact top K. `nann tune` finds a cheaper one, on more users.
    """
    from nann.bundle import Bundle

    from ..training.checkpoint import Checkpoint
    from ..training.data.prepared import PreparedData
    from ..training.search.default_search import recommend_search
    from ..training.search.pipeline import export_checkpoint
    from ..training.search.tune import describe

    prepared = PreparedData.load(data)
    report = export_checkpoint(Checkpoint.load(checkpoint), prepared, Bundle.open(bundle))
    console.print(
        f"user_encoder.onnx {report.user_encoder_bytes / 1e6:.1f} MB, scorer.onnx {report.scorer_bytes / 1e6:.1f} MB; "
        f"onnxruntime differs from torch by at most {report.max_difference:.1e} (allowed {report.tolerance:.0e}) "
        f"at {report.shapes_checked} shapes; {about_reachability(Bundle.open(bundle, files=[]))}"
    )
    search = recommend_search(Bundle.open(bundle), prepared)
    console.print(_about(search, describe(Bundle.open(bundle, files=[]).search_params)), highlight=False)
    body = {"bundle": str(bundle), **asdict(report), "search": search}
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
