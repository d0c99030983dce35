"""`nann baselines`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nann.errors import ConfigError

from .extras import advice
from .support import JsonOption, console, make_table, output, parse_integers, print_json

if TYPE_CHECKING:
    from nann.bundle import Bundle

    from ..training.baselines.compare import Comparison, Measures
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
    json: JsonOption = False,
) -> None:
    """Compare simple retrieval with the deep model on your data: does the deep model pay?

    All methods get the same users and histories, and are measured by what these users did next. Popular: the items most
    frequent in training. Own items: those most frequent in the user's history, then popular ones. item-kNN: items that
    the same users met. ALS: matrix factorization, with the package `implicit` (`pip install "nann[baselines]"`). The
    deep model scores every item, so that no search loses anything; its light head does the same by inner products.

    recall@K is the share of what a user did next that is among the K items; NDCG@K also counts how far up. Seconds are
    those to fit and to rank. The second table has the recall of rare and frequent items apart: the share of the targets
    that is found, by how often the target is in the training data. Items of the history are left out of the lists where
    the data set says so (`nann prepare log --exclude-history`). With --bundle the results are noted in the bundle.

    Example: nann baselines --data build/data/clicks --bundle build/bundle
    """
    from nann.bundle import Bundle

    from ..training.baselines.by_frequency import CLASSES, count_targets
    from ..training.baselines.compare import Comparison
    from ..training.data.prepared import PreparedData

    if bundle is not None and checkpoint is not None:
        raise ConfigError("--bundle and --checkpoint are both given; expected one of them, for one model")
    prepared = PreparedData.load(data)
    opened = None if bundle is None else Bundle.open(bundle)
    model = _model(prepared, opened, checkpoint, split, users)
    length = history or (_HISTORY if model is None else model.sequence_length)
    queries = prepared.queries(split, length, users)
    top_ks = parse_integers("--top-k", top_k) or ()
    rows = dict(measured_methods(Comparison(prepared, queries, top_ks), model))
    targets = dict(zip(CLASSES, count_targets(queries.target_items, prepared.train_counts), strict=True))
    only_new = ", without items of their history" if prepared.excludes_history else ""
    _show(f"{len(queries.users):,} {split} users, last {length} behaviours{only_new} (*: the best)", rows, top_ks)
    _show_by_frequency(f"recall@{max(top_ks)} by how often training saw the target (how many targets)", rows, targets)
    body = {
        "split": split,
        "users": len(queries.users),
        "top_k": top_ks,
        "history": length,
        "exclude_history": prepared.excludes_history,
        "targets_by_frequency": targets,
        "methods": rows,
    }
    if json:
        print_json(body)
    if opened is not None:
        opened.note(baselines={**opened.notes.get("baselines", {}), split: body})


def _model(
    data: PreparedData, bundle: Bundle | None, checkpoint: Path | None, split: str, users: int | None
) -> ModelLists | None:
    from ..training.checkpoint import Checkpoint
    from ..training.search.model_lists import ModelLists

    if bundle is not None:
        return ModelLists.of_bundle(bundle, data, split, users)
    if checkpoint is not None:
        return ModelLists.of_checkpoint(Checkpoint.load(checkpoint), data, split, users)
    return None


def measured_methods(comparison: Comparison, model: ModelLists | None) -> Iterator[tuple[str, Measures]]:
    """Each method's name and measures; ALS is left out with a line where its package is not installed."""
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


def _show(title: str, rows: Mapping[str, Measures], top_ks: Sequence[int]) -> None:
    metrics = {f"{metric}_{k}": f"{label}@{k}" for k in top_ks for metric, label in _METRICS.items()}
    cells = _cells({method: [row[metric] for metric in metrics] for method, row in rows.items()})
    cells = [[*shown, f"{row['seconds']:.1f}"] for shown, row in zip(cells, rows.values(), strict=True)]
    output.print(make_table(title, ("method", *metrics.values(), "seconds"), cells))


def _show_by_frequency(title: str, rows: Mapping[str, Measures], targets: Mapping[str, int]) -> None:
    columns = [f"{times} ({count:,})" for times, count in targets.items()]
    cells = _cells({method: row["by_frequency"] for method, row in rows.items()})
    output.print(make_table(title, ("method", *columns), cells))


def _cells(rows: Mapping[str, Sequence[float | None]]) -> list[list[str]]:
    """Rows of percentages with each column's best marked; a dash for None."""
    from ..training.baselines.compare import LABELS

    columns = list(zip(*rows.values(), strict=True))
    best = [max((value for value in column if value is not None), default=None) for column in columns]
    return [[LABELS[name], *map(_percentage, row, best)] for name, row in rows.items()]


def _percentage(value: float | None, best: float | None) -> str:
    return "-" if value is None else f"{value:.2%} {'*' if value and value == best else ' '}"
