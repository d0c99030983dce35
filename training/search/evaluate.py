"""Offline evaluation: what a search loses compared with scoring every item (paper, section 5.2)."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from nann.bundle import Bundle
from nann.errors import ConfigError, DataError
from nann.filters import NamedFilters
from nann.request_conditions import RequestConditions, items_matching
from nann.search_params import CONDITIONS, SearchOptions, SeedParams
from nann.search_requests import parse_search

from ..baselines.compare import BASELINES, best_baseline
from ..data.prepared import PreparedData
from ..export.onnx_export import require_exported
from ..scorers import OnnxScorer
from .measured_users import MeasuredUsers, bundle_users


@dataclass(frozen=True)
class Evaluation:
    """Metrics of section 5.2, as fractions, averaged over users.

    Attributes:
        recall_all: recall of the exhaustive top K.
        recall_retrieval: recall of what the search returned.
        recall_delta: (recall_all - recall_retrieval) / recall_all; None if recall_all is 0.
        coverage: share of the exhaustive top K that the search returned.
        share_scored: items scored / items in the corpus.
        items_scored: mean number of scorer evaluations per user.
        conditions: those of every request, by name; the exact top K has only items that they allow.
        items_matching: mean number of items that they allow.
        best_baseline, best_baseline_recall: the method without a deep model whose top K has the best recall for the
            same users, if `nann baselines` measured them for this bundle; else None.
        same_data: whether the model was trained on this very data set, so that it has seen none of the ground truth.
            With another preparation of the log it may have. None if the bundle does not say what it was trained on.
    """

    split: str
    users: int
    top_k: int
    ef: tuple[int, ...]
    rounds: tuple[int, ...]
    seeds: SeedParams | None
    recall_all: float
    recall_retrieval: float
    recall_delta: float | None
    coverage: float
    share_scored: float
    items_scored: float
    conditions: dict[str, Any]
    items_matching: float
    best_baseline: str | None
    best_baseline_recall: float | None
    same_data: bool | None

    def percentages(self) -> tuple[str, ...]:
        """The metrics as cells of a table."""
        values = (self.recall_all, self.recall_retrieval, self.recall_delta, self.coverage, self.share_scored)
        return tuple("-" if value is None else f"{100 * value:.2f}%" for value in values)


def evaluate_bundle(
    bundle: Bundle,
    data: PreparedData,
    options: SearchOptions | None = None,
    *,
    split: str = "test",
    users: int | None = None,
    operator: NamedFilters | None = None,
) -> Evaluation:
    """Evaluates a bundle with its exported models. `note_evaluation` keeps the result with the bundle.

    Args:
        bundle: complete, with its ONNX files.
        data: the data set it was made from.
        options: search parameters and conditions; None: the parameters that the bundle recommends. With
            `exclude_history` the history is what the model reads of it.
        split: "validation" or "test".
        users: how many users; None: all.
        operator: an operator's filters, which `filter_name` may name beside the bundle's.

    Raises:
        ConfigError: if there is no such split, top_k exceeds the number of items, or the conditions allow a user none.
        RequestError: if the bundle can't be searched with the options.
        DataError: if bundle and data set do not have the same items.
        BundleError: if the bundle was not exported.
    """
    require_exported(bundle)
    check_same_items(bundle, data)
    if split not in ("validation", "test"):
        raise ConfigError(f'split is "{split}"; expected validation or test')
    asked = {} if options is None else options.to_parameters()
    _, params = parse_search(asked, bundle.search_params, bundle.search_by_entry)
    if params.top_k > bundle.item_count:
        raise ConfigError(f"top_k is {params.top_k}; expected 1 to {bundle.item_count}, the number of items")
    notes = bundle.notes  # before minutes of scoring: they may be damaged
    trained_on = _entry(notes, "provenance", "data").get("identity")
    queries, batch = bundle_users(bundle, data, split, users)
    conditions = RequestConditions(bundle, operator)
    batch = replace(batch, blocked=conditions.blocked(options or SearchOptions(), queries.behaviors))
    matching = items_matching(batch.blocked, len(batch), bundle.item_count)
    if not matching.all():
        raise ConfigError(
            f"the conditions allow {np.count_nonzero(matching == 0)} of {len(batch)} users no item; ask for less"
        )
    scorer = OnnxScorer.of_bundle(bundle)
    measured = MeasuredUsers.of(scorer, batch, queries, bundle.item_count, params.top_k)
    metrics = measured.measure(bundle.index, scorer, params)
    name, best = _noted_baseline(notes, split, len(batch), params.top_k)
    return Evaluation(
        split=split,
        users=len(batch),
        top_k=params.top_k,
        ef=params.ef,
        rounds=params.rounds,
        seeds=params.seeds,
        **metrics,
        conditions={name: value for name, value in asked.items() if name in CONDITIONS},
        items_matching=float(matching.mean()),
        best_baseline=name,
        best_baseline_recall=best,
        same_data=None if trained_on is None else trained_on == data.identity,
    )


def note_evaluation(bundle: Bundle, result: Evaluation) -> None:
    """Writes the metrics into the bundle's notes; those under conditions are not noted."""
    if result.conditions:
        return
    bundle.note(metrics={**bundle.notes.get("metrics", {}), result.split: asdict(result)})


def _noted_baseline(notes: dict[str, Any], split: str, users: int, top_k: int) -> tuple[str | None, float | None]:
    """The best baseline's name and recall@top_k for the first `users` of a split, if the bundle's notes have it."""
    noted, metric = _entry(notes, "baselines", split), f"recall_{top_k}"
    methods = {name: row for name, row in _entry(noted, "methods").items() if name in BASELINES and metric in row}
    if noted.get("users") != users or not methods:
        return None, None
    best = best_baseline(methods, metric)
    return best, methods[best][metric]


def _entry(notes: dict[str, Any], *keys: str) -> dict[str, Any]:
    """What is noted under the keys; empty if there is nothing, or no object."""
    for key in keys:
        found = notes.get(key)
        notes = found if isinstance(found, dict) else {}
    return notes


def check_same_items(bundle: Bundle, data: PreparedData) -> None:
    """Raises DataError unless the bundle's models know the items of the data set, in the same order."""
    known = bundle.features.known_ids
    if not np.array_equal(known, data.item_ids):
        raise DataError(
            f"the {len(known)} items of {bundle.path} are not the {len(data.item_ids)} items of the data set; "
            "use the data set the bundle was made from"
        )
