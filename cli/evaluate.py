"""`nann evaluate`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from nann.search_params import CONDITIONS, SEARCH_PARAMETERS, SearchOptions

from .support import (
    DEFAULT_BUNDLE,
    BundleOption,
    JsonOption,
    console,
    make_table,
    output,
    print_json,
    with_search_options,
)


@with_search_options({**SEARCH_PARAMETERS, **CONDITIONS})
def evaluate(
    data: Annotated[Path, typer.Option(help="Prepared data set, for its test users.")],
    bundle: BundleOption = DEFAULT_BUNDLE,
    split: Annotated[str, typer.Option(help="validation or test.")] = "test",
    users: Annotated[int | None, typer.Option(min=1, help="Evaluate only this many users.")] = None,
    repository: Annotated[
        Path | None,
        typer.Option(help="Model repository, for --filter-name: a filter that its operator has set, not the bundle's."),
    ] = None,
    json: JsonOption = False,
    **search: Any,
) -> None:
    """Measure what the search loses compared with scoring every item.

    recall-all is the recall of scoring every item, recall-retrieval that of the search. coverage is the share of the
    exact top K that the search finds. If `nann baselines --bundle` has measured these users, the line below the table
    says what the best method without a deep model reaches. The results are noted in the bundle's notes.json, but not
    those under a condition (--exclude-history, --filter, --filter-name): then the exact top K has only items that the
    condition allows. A search option that is not given has the value that the bundle recommends.
    """
    from nann.bundle import Bundle
    from nann.filters import NamedFilters

    from ..training.baselines.compare import LABELS
    from ..training.data.prepared import PreparedData
    from ..training.search.evaluate import evaluate_bundle, note_evaluation

    opened, prepared = Bundle.open(bundle), PreparedData.load(data)
    operator = None if repository is None else NamedFilters.of_repository(repository)
    result = evaluate_bundle(opened, prepared, SearchOptions(**search), split=split, users=users, operator=operator)
    seeds = f"{result.seeds.count} seeds, " if result.seeds is not None else ""
    allowed = f", {result.items_matching:,.0f} items matching" if result.conditions else ""
    settings = f"{seeds}top {result.top_k}, ef {list(result.ef)}, rounds {list(result.rounds)}{allowed}"
    columns = ("recall-all", "recall-retrieval", "recall-Delta", "coverage", "share scored")
    output.print(make_table(f"{result.users} {split} users, {settings}", columns, [result.percentages()]))
    line = "does the deep model pay? `nann baselines` compares it with simple methods on these users"
    if result.best_baseline is not None:
        line = f"best without a deep model: {LABELS[result.best_baseline]}, recall {result.best_baseline_recall:.2%}"
    output.print(line, highlight=False)
    if result.same_data is False:
        console.print(
            "[bold]warning:[/] the bundle's model was trained on another data set, or on another split of this log: "
            "it may have seen these users' answers, and recall may be too high. Evaluate on the one it was trained on",
            soft_wrap=True,
            highlight=False,
        )
    if json:
        print_json(asdict(result))
    note_evaluation(opened, result)
