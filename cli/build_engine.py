"""`nann build-engine`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .support import JsonOption, console, print_json


def build_engine(
    bundle: Annotated[Path, typer.Option(help="From `nann index` and `nann export --half`.")] = Path("build/bundle"),
    out: Annotated[Path, typer.Option(help="Folder for the plans.")] = Path("build/plans"),
    full_precision: Annotated[
        bool, typer.Option("--full-precision", help="The scorer in float32 in place of half precision.")
    ] = False,
    compute_capability: Annotated[
        list[str] | None,
        typer.Option(help="Build for this GPU in place of the one here, as 8.6; only TensorRT for RTX can."),
    ] = None,
    optimization_level: Annotated[
        int, typer.Option(min=0, max=5, help="How long TensorRT looks for fast kernels.")
    ] = 3,
    keep: Annotated[bool, typer.Option("--keep", help="Build nothing where the plans in OUT fit already.")] = False,
    json: JsonOption = False,
) -> None:
    """Build TensorRT plans of the user encoder and the scorer, for the target tensorrt.

    One optimization profile for each width of the bundle's padding grid (`nann plan-shapes`). A plan loads only in the
    TensorRT version that built it, on the kind of GPU that it was built for: run this in the image that serves.
    """
    from nann.bundle import Bundle

    from ..training.export.engine import EngineOptions, build_plans, fitting_plans

    options = EngineOptions(not full_precision, tuple(compute_capability or ()), optimization_level)
    opened = Bundle.open(bundle)
    plans = fitting_plans(opened, out, options) if keep else None
    plans = plans or build_plans(opened, out, options)
    manifest = plans.manifest
    for name, entry in manifest["plans"].items():
        inspected = "engine inspected" if "engine" in entry["inspection"] else "network inspected, the engine not"
        console.print(f"{name}: {entry['bytes'] / 1e6:.1f} MB, {entry['precision']} precision, {inspected}")
    gpu = manifest["gpu"]["name"] if manifest["gpu"] else ", ".join(manifest["compute_capabilities"])
    widths = manifest["shape_grid"]["widths"]
    console.print(f"{manifest['library']} {manifest['tensorrt']} for {gpu}; {len(widths)} profiles, widths {widths}")
    if json:
        print_json({"plans": str(out), **manifest})
