"""`nann plan-shapes`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nann.errors import ConfigError

from .support import DEFAULT_BUNDLE, BundleOption, JsonOption, console, print_json


def plan_shapes(
    bundle: BundleOption = DEFAULT_BUNDLE,
    requests: Annotated[
        Path | None, typer.Option(help='Requests as clients send them, one per line: {"behavior_item_ids": [11, 12]}.')
    ] = None,
    data: Annotated[Path | None, typer.Option(help="Instead: the validation users of this prepared data set.")] = None,
    users: Annotated[int, typer.Option(min=1, help="Replay at most this many of them.")] = 256,
    shapes: Annotated[int, typer.Option(min=1, help="How many widths; each becomes one optimization profile.")] = 8,
    json: JsonOption = False,
) -> None:
    """Plan the padding grid: the shapes of scorer calls on a GPU.

    Replays requests offline and finds the widths that compute the fewest scores, by dynamic programming. Writes them
    into the bundle, with one real request for the warm-up. Optimization profiles, CUDA graphs and padding depend on
    them, so build the engines afterwards.
    """
    from nann.bundle import Bundle

    from ..training.data.prepared import PreparedData
    from ..training.search import shape_plan

    opened = Bundle.open(bundle)
    if (requests is None) == (data is None):
        raise ConfigError("give either --requests, a log of requests, or --data, a prepared data set")
    if requests is not None:
        asked = shape_plan.read_requests(requests, opened)
    else:
        assert data is not None
        asked = shape_plan.data_requests(PreparedData.load(data), opened, users)
    plan = shape_plan.plan_shapes(opened, asked, shapes)
    console.print(
        f"{plan.calls:,} scorer calls of {len(asked.params):,} requests; "
        f"widths {', '.join(map(str, plan.grid.widths))}: "
        f"{plan.waste:.1%} of the computed scores are padding ({plan.default_waste:.1%} with the default widths)",
        highlight=False,
    )
    if json:
        body = {"bundle": str(bundle), "shape_grid": plan.grid.to_manifest(), "requests": len(asked.params)}
        counts = ("calls", "candidates", "lockstep", "padded", "waste", "default_waste")
        print_json({**body, **{name: getattr(plan, name) for name in counts}})
