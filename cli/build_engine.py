"""`nann build-engine`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .support import DEFAULT_BUNDLE, BundleOption, JsonOption, console, print_json


def build_engine(
    bundle: BundleOption = DEFAULT_BUNDLE,
    out: Annotated[Path, typer.Option(help="Folder for the plans.")] = Path("build/plans"),
    full_precision: Annotated[
        bool, typer.Option("--full-precision", help="Scorer in float32, if `nann export` ran without --half.")
    ] = False,
    compute_capability: Annotated[
        list[str] | None,
        typer.Option(help="Build for this, such as 8.6: without a GPU, or for another. Only TensorRT for RTX can."),
    ] = None,
    optimization_level: Annotated[
        int, typer.Option(min=0, max=5, help="How long TensorRT searches for fast kernels.")
    ] = 3,
    keep: Annotated[bool, typer.Option("--keep", help="Build only what the plans in OUT do not fit.")] = False,
    json: JsonOption = False,
) -> None:
    """Build TensorRT plans of the user encoder and the scorer, for the target tensorrt.

    Each width of the bundle's padding grid (`nann plan-shapes`) has one optimization profile. A plan loads only in the
    TensorRT version and on the kind of GPU that it was built for: run this in the image that serves.
    """
    from nann.bundle import Bundle

    from ..training.export.engine import EngineOptions, build_plans

    options = EngineOptions(not full_precision, tuple(compute_capability or ()), optimization_level)
    opened = Bundle.open(bundle)
    plans = build_plans(opened, out, options, keep=keep)
    manifest = plans.manifest
    for name, entry in manifest["plans"].items():
        inspected = "engine inspected" if "engine" in entry["inspection"] else "network inspected, the engine not"
        console.print(f"{name}: {entry['bytes'] / 1e6:.1f} MB, {entry['precision']} precision, {inspected}")
    gpu = manifest["gpu"]["name"] if manifest["gpu"] else ", ".join(manifest["compute_capabilities"])
    widths = manifest["shape_grid"]["widths"]
    console.print(f"{manifest['library']} {manifest['tensorrt']} for {gpu}, an optimization profile per width {widths}")
    if json:
        print_json({"plans": str(out), **manifest})
