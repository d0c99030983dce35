"""Offline evaluation: what the walk loses against scoring every item (paper, section 5.2)."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

from nann.bundle import SCORER_FILE, Bundle
from nann.errors import ConfigError, DataError
from nann.scorer import Scorer
from nann.search_input import SearchIndex
from nann.search_params import SearchOptions, SearchParams, SeedParams
from nann.search_requests import parse_search

from ..data.prepared import PreparedData
from ..export.onnx_export import require_exported
from ..scorers import OnnxScorer
from .measured_users import MeasuredUsers, bundle_users, exact_top


@dataclass(frozen=True)
class Evaluation:
    """Metrics of section 5.2, as fractions, averaged over users.

    Attributes:
        recall_all: recall of the exhaustive top K.
        recall_retrieval: recall of what the search returned.
        recall_delta: (recall_all - recall_retrieval) / recall_all; None if recall_all is 0.
        coverage: share of the exhaustive top K that the search returned.
        share_scored: items scored / items in the corpus.
        items_scored: mean number of scorer evaluations a user.
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

    def percentages(self) -> tuple[str, ...]:
        """The metrics as a table shows them."""
        values = (self.recall_all, self.recall_retrieval, self.recall_delta, self.coverage, self.share_scored)
        return tuple("-" if value is None else f"{100 * value:.2f}%" for value in values)


def evaluate_bundle(
    bundle: Bundle,
    data: PreparedData,
    options: SearchOptions | None = None,
    *,
    split: str = "test",
    users: int | None = None,
) -> Evaluation:
    """Evaluates a bundle with its exported models and notes the metrics beside its manifest.

    Args:
        bundle: complete, ONNX files included.
        data: the data set it was made from.
        options: what to ask of the search; None: what the bundle recommends.
        split: "validation" or "test".
        users: how many users, None = all.

    Raises:
        ConfigError: if there is no such split, or the bundle has fewer items than are asked for.
        RequestError: if the bundle can't be searched with the options.
        DataError: if bundle and data set do not number the same items.
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
    queries, batch = bundle_users(bundle, data, split, users)
    scorer = OnnxScorer(bundle.path / SCORER_FILE)
    exact = exact_top(scorer, batch, bundle.item_count, params.top_k)
    result = evaluate_search(MeasuredUsers(batch, queries, exact), bundle.index, scorer, params, split)
    bundle.note(metrics={**bundle.notes.get("metrics", {}), split: asdict(result)})
    return result


def evaluate_search(
    users: MeasuredUsers, index: SearchIndex, scorer: Scorer, params: SearchParams, split: str
) -> Evaluation:
    """Compares `beam_search` with the users' exact top K."""
    return Evaluation(
        split=split,
        users=len(users),
        top_k=params.top_k,
        ef=params.ef,
        rounds=params.rounds,
        seeds=params.seeds,
        **users.measure(index, scorer, params),
    )


def check_same_items(bundle: Bundle, data: PreparedData) -> None:
    """Raises DataError unless bundle and data set number the same items."""
    if not np.array_equal(bundle.item_ids, data.item_ids):
        raise DataError(
            f"{bundle.path} has {bundle.item_count} items and the data set {len(data.item_ids)}, and they are not the "
            "same; use the data set the bundle was made from"
        )
