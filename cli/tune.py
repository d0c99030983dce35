"""`nann tune`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from nann.errors import ConfigError

from .support import DEFAULT_BUNDLE, BundleOption, JsonOption, console, make_table, output, print_json

if TYPE_CHECKING:
    from nann.search_params import SearchParams

    from ..training.search.tune import TuningReport
    from ..training.search.tuning_trials import Trial


def tune(
    data: Annotated[Path, typer.Option(help="Prepared data set, for its validation users.")],
    bundle: BundleOption = DEFAULT_BUNDLE,
    aim: Annotated[str, typer.Option(help="What the search must reach: coverage or recall.")] = "coverage",
    coverage: Annotated[float, typer.Option(help="Share of the exact top K that the search must find.")] = 0.98,
    recall_delta: Annotated[
        float,
        typer.Option(
            help="With --aim recall: largest share of recall-all that the search may lose, its standard error included."
        ),
    ] = 0.005,
    max_share: Annotated[
        float | None,
        typer.Option(
            help="Largest share of the items that a search may score. Default: 0.25, or 1 where entry all is served.",
            min=0.0,
            max=1.0,
            show_default=False,
        ),
    ] = None,
    top_k: Annotated[int | None, typer.Option(min=1, help="How many items to retrieve. Default: the bundle's.")] = None,
    users: Annotated[int, typer.Option(min=1, help="Tune on at most this many validation users.")] = 256,
    entry: Annotated[
        str | None,
        typer.Option(
            help="Tune for one entry strategy: layers (the paper's), seeds, or all, which scores all of at most max_ef "
            "items. Default: the cheapest."
        ),
    ] = None,
    filter: Annotated[
        list[str] | None,
        typer.Option(
            help="A filter that a share of the requests has; may be repeated. The users take turns in asking without a "
            "filter and with each.",
        ),
    ] = None,
    seconds: Annotated[
        float | None, typer.Option(min=0, help="Try no more settings after so many seconds. Default: no limit.")
    ] = None,
    repair: Annotated[
        bool, typer.Option("--repair", help="Link the items that no search reaches. This changes the bundle's graph.")
    ] = False,
    repository: Annotated[
        Path | None,
        typer.Option(
            help="Model repository that will serve the bundle: the search stays within its max_top_k and max_ef. "
            "Default: the bounds of a new repository.",
            show_default=False,
        ),
    ] = None,
    plot: Annotated[Path | None, typer.Option(help="PNG of the frontier. Default: BUNDLE.tuning.png.")] = None,
    json: JsonOption = False,
) -> None:
    """Find the cheapest search that reaches a coverage or a recall, and recommend it in the bundle.

    Cost is the number of items scored. The few cheapest searches of each entry are then timed on this machine, one user
    at a time, with the engine that will run the scorer on a CPU (`nann serve --engine`); of those that are equally fast
    the one that scores fewest items is recommended. Tuning uses validation users only, never test users: measure with
    `nann evaluate` afterwards. Items that no search can reach are reported.

    recall-Delta is the share of recall that the search loses. It rests on the targets that scoring every item finds;
    where these are few it is mostly chance. So it is shown with its standard error, and must reach the aim with it:
    few targets need a coverage near 100%. With --aim recall raise --users.

    With --filter the aim is for the mean over all users, and a second table shows what the recommended search finds and
    costs under each filter. Give filters as requests have them, also rare ones.

    Example: nann tune --data build/data/complete_journey --coverage 0.99 --max-share 0.07
    """
    from nann.bundle import Bundle
    from nann.manifest import search_to_json
    from nann.search_requests import SERVED_BOUNDS

    from ..python_backend.engines.choose import bundle_engine
    from ..python_backend.engines.onnx_model import EmbeddedScorer
    from ..python_backend.engines.recorded import AUTO, recorded_engine
    from ..python_backend.repository.configs import search_bounds
    from ..training.data.prepared import PreparedData
    from ..training.search.timed_search import SearchTimer
    from ..training.search.tune import tune_bundle
    from ..training.search.tuning_trials import Aim

    if aim not in ("coverage", "recall"):
        raise ConfigError(f'aim is "{aim}"; expected coverage or recall')

    def timer(opened: Bundle) -> SearchTimer:
        chosen = bundle_engine(opened, (repository and recorded_engine(repository)) or AUTO)
        return SearchTimer(EmbeddedScorer(chosen.engine, opened.item_rows), chosen.name)

    report = tune_bundle(
        Bundle.open(bundle),
        PreparedData.load(data),
        Aim(coverage=coverage) if aim == "coverage" else Aim(recall_delta=recall_delta),
        top_k=top_k,
        users=users,
        max_share=max_share,
        entry=entry,
        filters=filter or (),
        repair=repair,
        plot=plot,
        seconds=seconds,
        bounds=SERVED_BOUNDS if repository is None else search_bounds(repository),
        timer=timer,
    )
    _show(report, under_filters=bool(filter))
    if json:
        opened = Bundle.open(bundle, files=[])
        found = {"search": search_to_json(report.params), "plot": str(report.plot), "tuning": report.record}
        print_json({"bundle_id": opened.bundle_id, **found})


def _show(report: TuningReport, *, under_filters: bool) -> None:
    record = report.record
    title = f"frontier on {record['users']} validation users, top {report.params.top_k}"
    output.print(make_table(title, ("search", "share scored", "coverage", "recall-Delta", ""), _frontier(report)))
    output.print(_by_time(report.timed, report.params, record["timed"]["engine"]))
    if under_filters:
        output.print(_under_each(record))
    console.print(_rests_on(record), highlight=False)
    console.print(f"{_missed(record)}; plot: {report.plot}", highlight=False)
    console.print(f"{record['walks']} walks; {record['seconds']:.0f} s in all", highlight=False)


def _frontier(report: TuningReport) -> list[list[str]]:
    from ..training.search.tune import describe

    rows = []
    for trial in report.frontier:
        picked = trial.params == report.params
        style = "[bold green]" if picked else ""
        cells = (describe(trial.params), f"{trial.share_scored:.2%}", f"{trial.coverage:.2%}", trial.lost)
        rows.append([style + cell for cell in (*cells, "recommended" if picked else "")])
    return rows


def _by_time(timed: Sequence[Trial], picked: SearchParams, engine: str) -> Table:
    from ..training.search.tune import describe

    rows = [
        (
            f"{trial.params.entry}: {describe(trial.params)}",
            f"{trial.ms:.2f}",
            f"{trial.items_scored:,.0f}",
            f"{trial.coverage:.2%}",
            "recommended" if trial.params == picked else "",
        )
        for trial in timed
    ]
    columns = ("search", "ms a user", "items scored", "coverage", "")
    return make_table(f"by time, one user at a time, engine {engine}", columns, rows)


def _under_each(record: Mapping[str, Any]) -> Table:
    rows = [
        (
            one["filter"] or "none",
            f"{one['users']:,}",
            f"{one['items_matching']:,}",
            f"{one['coverage']:.2%}",
            f"{one['items_scored']:,.0f}",
        )
        for one in record["by_filter"]
    ]
    columns = ("filter", "users", "items matching", "coverage", "items scored")
    return make_table("the recommended search under each filter", columns, rows)


def _missed(record: Mapping[str, Any]) -> str:
    """What no search reaches, and what linking it has changed, in words."""
    missed = (
        f"{record['unreachable_items']:,} items can't be reached, {record['items_without_in_links']:,} have no links"
    )
    if "repair" not in record:
        return missed
    before = record["repair"]["before"]
    return (
        f"{missed}; {record['repair']['items_linked']:,} were linked: coverage {before['coverage']:.2%} -> "
        f"{record['coverage']:.2%}, share scored {before['share_scored']:.2%} -> {record['share_scored']:.2%}"
    )


def _rests_on(record: Mapping[str, Any]) -> str:
    """How many targets recall-Delta rests on, in words."""
    found, targets = record["targets_found_by_all"], record["targets"]
    one = f": one of them is about {1 / found:.2%}" if found else ""
    return f"recall-Delta rests on {found:,} of {targets:,} targets, those that scoring every item finds{one}"
