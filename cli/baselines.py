"""`nann baselines`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nann.errors import ConfigError

from .extras import advice
from .support import JsonOption, console, make_table, output, parse_integers, print_json

if TYPE_CHECKING:
    from ..training.baselines.compare import Comparison
    from ..training.data.prepared import PreparedData
    from ..training.search.model_lists import ModelLists

_HISTORY = 200
_METRICS = {"recall": "recall", "ndcg": "NDCG"}


def baselines(
    data: Annotated[Path, typer.Option(help="Prepared data set.")],
    bundle: Annotated[
        Path | None, typer.Option(help="Measure its model too; from `nann index` and `nann export`.")
    ] = None,
    checkpoint: Annotated[
        Path | None, typer.Option(help="Or the model of a checkpoint that has no bundle yet.")
    ] = None,
    split: Annotated[str, typer.Option(help="validation or test.")] = "test",
    users: Annotated[int | None, typer.Option(min=1, help="Measure this many users only.")] = None,
    top_k: Annotated[str, typer.Option(help="Lengths of the lists that are measured.")] = "20,200",
    history: Annotated[
        int | None,
        typer.Option(
            min=1,
            help=f"How many of a user's last behaviours the baselines read. Default: as many as the model reads, "
            f"{_HISTORY} without a model.",
        ),
    ] = None,
    exclude_history: Annotated[
        bool, typer.Option("--exclude-history", help="Leave out of each list what the user met before.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Compare simple retrieval with the deep model on your data: does the deep model pay?

    All methods get the same users and histories, and are measured by what these users did next. Popular: the items most
    frequent in training. Own items: those most frequent in the user's history, then popular ones. item-kNN: items that
    the same users met. ALS: matrix factorization, with the package `implicit` (`pip install "nann[baselines]"`). The
    deep model scores every item, so that no search loses anything; its light head does the same by inner products.

    recall@K is the share of what a user did next that is among the K items; NDCG@K also counts how far up. Seconds are
    those to fit and to rank. Where own items win, `--exclude-history` shows how well the methods find new items.

    Example: nann baselines --data build/data/clicks --bundle build/bundle
    """
    from ..training.baselines.compare import Comparison
    from ..training.data.prepared import PreparedData

    prepared = PreparedData.load(data)
    model = _model(prepared, bundle, checkpoint, split, users)
    length = history or (_HISTORY if model is None else model.sequence_length)
    queries = prepared.queries(split, length, users)
    top_ks = parse_integers("--top-k", top_k) or ()
    comparison = Comparison.of(prepared, queries, top_ks, exclude_history=exclude_history)
    rows = dict(_measured(comparison, model))
    only_new = ", without items of their history" if exclude_history else ""
    _show(f"{len(queries.users):,} {split} users, last {length} behaviours{only_new}", rows, top_ks)
    if json:
        settings = {"split": split, "users": len(queries.users), "top_k": top_ks, "history": length}
        print_json({**settings, "exclude_history": exclude_history, "methods": rows})


def _model(
    data: PreparedData, bundle: Path | None, checkpoint: Path | None, split: str, users: int | None
) -> ModelLists | None:
    from nann.bundle import Bundle

    if bundle is None and checkpoint is None:
        return None
    if bundle is not None and checkpoint is not None:
        raise ConfigError("--bundle and --checkpoint are both given; expected one of them, for one model")
    from ..training.checkpoint import Checkpoint
    from ..training.search.model_lists import ModelLists

    if bundle is not None:
        return ModelLists.of_bundle(Bundle.open(bundle), data, split, users)
    assert checkpoint is not None
    return ModelLists.of_checkpoint(Checkpoint.load(checkpoint), data, split, users)


def _measured(comparison: Comparison, model: ModelLists | None) -> Iterator[tuple[str, dict[str, float]]]:
    """Each method's name and metrics."""
    from ..training.baselines.compare import BASELINES, LABELS

    for name in BASELINES:
        with console.status(LABELS[name]):
            try:
                yield name, comparison.baseline(name)
            except ModuleNotFoundError as error:
                if (line := advice(error, "baselines")) is None:
                    raise
                console.print(f"{LABELS[name]} is left out. {line}", soft_wrap=True, markup=False, highlight=False)
    if model is not None:
        yield "deep", comparison.measure(model.exact)
        if model.light_vectors is not None:
            yield "light", comparison.measure(model.light)


def _show(title: str, rows: Mapping[str, Mapping[str, float]], top_ks: tuple[int, ...]) -> None:
    from ..training.baselines.compare import LABELS

    metrics = {f"{metric}_{k}": f"{label}@{k}" for k in top_ks for metric, label in _METRICS.items()}
    best = {metric: max(row[metric] for row in rows.values()) for metric in metrics}
    cells = []
    for method, row in rows.items():
        bold = {metric: "[bold green]" if row[metric] == best[metric] else "" for metric in metrics}
        values = [f"{bold[metric]}{row[metric]:.2%}" for metric in metrics]
        cells.append([LABELS[method], *values, f"{row['seconds']:.1f}"])
    output.print(make_table(title, ("method", *metrics.values(), "seconds"), cells))
