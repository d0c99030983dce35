"""`nann evaluate`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from nann.search_params import SEARCH_PARAMETERS, SearchOptions

from .support import JsonOption, output, print_json, with_search_options


@with_search_options(SEARCH_PARAMETERS)
def evaluate(
    data: Annotated[Path, typer.Option(help="Prepared data set, for its test users.")],
    bundle: Annotated[Path, typer.Option(help="From `nann index` and `nann export`.")] = Path("build/bundle"),
    split: Annotated[str, typer.Option(help="validation or test.")] = "test",
    users: Annotated[int | None, typer.Option(min=1, help="Evaluate this many users only.")] = None,
    json: JsonOption = False,
    **search: Any,
) -> None:
    """Measure what the search loses against scoring every item.

    recall-all is the recall of exhaustive scoring, recall-retrieval that of the search, coverage the share of the
    exhaustive top K that the search finds. The figures are noted in the bundle's notes.json. A search option that is
    not given is as the bundle recommends.
    """
    from nann.bundle import Bundle

    from ..training.data.prepared import PreparedData
    from ..training.search.evaluate import evaluate_bundle

    result = evaluate_bundle(
        Bundle.open(bundle),
        PreparedData.load(data),
        SearchOptions(**search),
        split=split,
        users=users,
    )
    seeds = f"{result.seeds.count} seeds, " if result.seeds is not None else ""
    settings = f"{seeds}top {result.top_k}, ef {list(result.ef)}, rounds {list(result.rounds)}"
    table = Table(title=f"{result.users} {split} users, {settings}")
    for column in ("recall-all", "recall-retrieval", "recall-Delta", "coverage", "share scored"):
        table.add_column(column, justify="right")
    table.add_row(*result.percentages())
    output.print(table)
    if json:
        print_json(asdict(result))
