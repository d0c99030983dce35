"""`nann tune`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from cli.support import JsonOption, console, output, print_json


def tune(
    data: Annotated[Path, typer.Option(help="Prepared data set, for its validation users.")],
    bundle: Annotated[Path, typer.Option(help="From `nann index` and `nann export`.")] = Path("build/bundle"),
    coverage: Annotated[float, typer.Option(help="Wanted share of the exact top K that the search finds.")] = 0.98,
    max_share: Annotated[
        float, typer.Option(help="Largest share of the items that a search may score.", min=0.0, max=1.0)
    ] = 0.25,
    top_k: Annotated[int | None, typer.Option(min=1, help="How many items to retrieve. Default: the bundle's.")] = None,
    users: Annotated[int, typer.Option(min=1, help="Tune on this many validation users at most.")] = 256,
    repair: Annotated[
        bool, typer.Option("--repair", help="Link the items that no search reaches; changes the bundle's graph.")
    ] = False,
    plot: Annotated[Path | None, typer.Option(help="PNG of the frontier. Default: BUNDLE.tuning.png.")] = None,
    json: JsonOption = False,
) -> None:
    """Find the cheapest ef and rounds that reach a wanted coverage, and recommend them in the bundle.

    Cost is the number of items scored. Only validation users are looked at, never test users: measure with
    `nann evaluate` afterwards. Items that no search can reach are reported.

    Example: nann tune --data build/data/complete_journey --coverage 0.99 --max-share 0.07
    """
    from nann.bundle import Bundle
    from training.data.prepared import PreparedData
    from training.tune import tune_bundle

    report = tune_bundle(
        Bundle.open(bundle),
        PreparedData.load(data),
        coverage,
        top_k=top_k,
        users=users,
        max_share=max_share,
        repair=repair,
        plot=plot,
    )
    record = report.record
    table = Table(title=f"frontier on {record['users']} validation users, top {report.params.top_k}")
    for column in ("ef", "rounds", "share scored", "coverage"):
        table.add_column(column, justify="right")
    for trial in report.frontier:
        picked = trial.params == report.params
        ef, rounds = (",".join(map(str, values)) for values in (trial.params.ef, trial.params.rounds))
        row = (ef, rounds, f"{trial.share_scored:.2%}", f"{trial.coverage:.2%}")
        table.add_row(*row, style="bold green" if picked else None)
    output.print(table)
    missed = (
        f"{record['unreachable_items']:,} items can't be reached, {record['items_without_in_links']:,} have no links"
    )
    if "repair" in record:
        before = record["repair"]["before"]
        missed += (
            f"; {record['repair']['items_linked']:,} were linked: coverage {before['coverage']:.2%} -> "
            f"{record['coverage']:.2%}, share scored {before['share_scored']:.2%} -> {record['share_scored']:.2%}"
        )
    console.print(f"{missed}; plot: {report.plot}", highlight=False)
    if json:
        search = {"top_k": report.params.top_k, "ef": list(report.params.ef), "rounds": list(report.params.rounds)}
        opened = Bundle.open(bundle, files=[])
        print_json({"bundle_id": opened.bundle_id, "search": search, "plot": str(report.plot), "tuning": record})
