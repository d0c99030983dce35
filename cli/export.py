"""`nann export`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from .support import DEFAULT_BUNDLE, DEFAULT_CHECKPOINT, JsonOption, TrainedDataOption, console, print_json


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
    """
    from nann.bundle import Bundle

    from ..training.checkpoint import Checkpoint
    from ..training.data.prepared import PreparedData
    from ..training.search.pipeline import export_checkpoint

    report = export_checkpoint(Checkpoint.load(checkpoint), PreparedData.load(data), Bundle.open(bundle))
    console.print(
        f"user_encoder.onnx {report.user_encoder_bytes / 1e6:.1f} MB, scorer.onnx {report.scorer_bytes / 1e6:.1f} MB; "
        f"onnxruntime differs from torch by at most {report.max_difference:.1e} (allowed {report.tolerance:.0e}) "
        f"at {report.shapes_checked} shapes"
    )
    body = {"bundle": str(bundle), **asdict(report)}
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
