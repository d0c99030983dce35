"""Offline evaluation: what the walk loses against scoring every item (paper, section 5.2)."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
from rich.console import Console
from rich.progress import Progress

from nann.bundle import SCORER_FILE, USER_ENCODER_FILE, Bundle
from nann.errors import ConfigError, DataError
from nann.exact_search import exact_search
from nann.metrics import coverage, recall, recall_delta, share_scored
from nann.scorer import Float32Array, Scorer
from nann.search_input import UserBatch
from nann.search_params import SearchOptions, SearchParams, SeedParams
from nann.search_requests import parse_search
from nann.search_result import SearchResult

from ..data.prepared import PreparedData, Queries
from ..export.onnx_export import require_exported
from ..scorers import OnnxScorer, OnnxUserEncoder
from .ground_rounds import search_users

_USER_BLOCK = 64


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
    queries = data.queries(split, bundle.sequence_length, users)
    encoder = OnnxUserEncoder(bundle.path / USER_ENCODER_FILE)
    states = encode_queries(encoder, bundle, queries)
    scorer = OnnxScorer(bundle.path / SCORER_FILE)
    result = evaluate_search(bundle, scorer, states, queries, params, split)
    bundle.note(metrics={**bundle.notes.get("metrics", {}), split: asdict(result)})
    return result


def evaluate_search(
    bundle: Bundle, scorer: Scorer, states: Float32Array, queries: Queries, params: SearchParams, split: str
) -> Evaluation:
    """Compares `beam_search` with `exact_search` for users whose states are given."""
    users = UserBatch(states, queries.behaviors)
    exact = exact_top(scorer, users, bundle.item_count, params.top_k)
    found = search_users(bundle.index, scorer, users, params)
    recall_all = recall(exact.items, queries.target_indptr, queries.target_items)
    recall_retrieval = recall(found.items, queries.target_indptr, queries.target_items)
    return Evaluation(
        split=split,
        users=len(states),
        top_k=params.top_k,
        ef=params.ef,
        rounds=params.rounds,
        seeds=params.seeds,
        recall_all=recall_all,
        recall_retrieval=recall_retrieval,
        recall_delta=recall_delta(recall_all, recall_retrieval) if recall_all else None,
        coverage=coverage(found.items, exact.items),
        share_scored=share_scored(found.items_scored, bundle.item_count),
        items_scored=float(found.items_scored.mean()),
    )


def exact_top(scorer: Scorer, users: UserBatch, item_count: int, top_k: int) -> SearchResult:
    """`exact_search` with a progress bar."""
    with Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task("scoring every item", total=None)
        return exact_search(
            scorer,
            users,
            item_count,
            top_k,
            user_block=4,
            progress=lambda done, total: progress.update(task, completed=done, total=total),
        )


def encode_queries(encoder: OnnxUserEncoder, bundle: Bundle, queries: Queries) -> Float32Array:
    """User states of all queries, a block at a time: float32[Q, S]."""
    # As the server does it: a model without a profile gets none, even where the data set has one.
    profiles = bundle.features.profile(queries.profiles.astype(np.int64), len(queries.behaviors))
    blocks = range(0, len(profiles), _USER_BLOCK)
    return np.concatenate(
        [encoder.encode(queries.behaviors[i : i + _USER_BLOCK], profiles[i : i + _USER_BLOCK]) for i in blocks]
    )


def check_same_items(bundle: Bundle, data: PreparedData) -> None:
    """Raises DataError unless bundle and data set number the same items."""
    if not np.array_equal(bundle.item_ids, data.item_ids):
        raise DataError(
            f"{bundle.path} has {bundle.item_count} items and the data set {len(data.item_ids)}, and they are not the "
            "same; use the data set the bundle was made from"
        )
