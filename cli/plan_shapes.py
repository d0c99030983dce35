"""`nann plan-shapes`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nann.errors import ConfigError

from .support import JsonOption, console, print_json


def plan_shapes(
    bundle: Annotated[Path, typer.Option(help="From `nann index` and `nann export`.")] = Path("build/bundle"),
    requests: Annotated[
        Path | None, typer.Option(help='Log of requests: {"behavior_item_ids": [11, 12]} a line, as clients send them.')
    ] = None,
    data: Annotated[Path | None, typer.Option(help="In place of a log: this data set's validation users.")] = None,
    users: Annotated[int, typer.Option(min=1, help="Replay this many of them at most.")] = 256,
    shapes: Annotated[int, typer.Option(min=1, help="How many widths; each is one optimization profile.")] = 8,
    json: JsonOption = False,
) -> None:
    """Plan the padding grid: the shapes that the scorer is called with on a GPU.

    Replays requests offline and picks the widths that compute the fewest scores, by exact dynamic programming. Writes
    them into the bundle, with one real request to warm up with. TensorRT profiles, CUDA graphs and padding follow from
    it: build the engines afterwards.
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
