"""Checks that a bundle makes sense. Its hashes say that the files are those that were written, and nothing more."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from nann.beam_search import beam_search
from nann.bundle import ITEM_IDS_FILE, ITEM_ROWS_FILE, LIGHT_VECTORS_FILE, Bundle
from nann.errors import BundleError
from nann.graph import LEVELS_FILE, HnswGraph
from nann.reachability import MAX_UNREACHABLE, Reachability
from nann.scorer import Float32Array, Int32Array
from nann.search_input import SearchIndex, UserBatch
from nann.search_params import SearchParams

_USERS = 4
_CHUNK = 1 << 18


def check_servable(bundle: Bundle) -> None:
    """Refuses a bundle whose answers would be nonsense. It reads ids, graph, light vectors and item rows once.

    It reads no ONNX file.

    Raises:
        BundleError: naming the file or the setting, what it holds and what was expected.
    """
    where = f"{bundle.path}: "
    bundle.id_kind.check(bundle.item_ids, f"{where}{ITEM_IDS_FILE}")
    if bundle.light_vectors is not None:
        _check_finite(f"{where}{LIGHT_VECTORS_FILE}", bundle.light_vectors)
    if bundle.item_rows is not None:
        _check_finite(f"{where}{ITEM_ROWS_FILE}", bundle.item_rows.base)
    _check_levels(where, bundle.graph)
    Reachability.require(bundle.graph)
    check_searches(bundle.index, bundle.search_by_entry.values())


def first_not_finite(rows: Float32Array) -> int | None:
    """The first row of `float32[N, any]` that holds NaN or infinity, read in parts; None if there is none."""
    for start in range(0, len(rows), _CHUNK):
        broken = np.flatnonzero(~np.isfinite(rows[start : start + _CHUNK]).all(axis=1))
        if broken.size:
            return start + int(broken[0])
    return None


def _check_finite(where: str, rows: Float32Array) -> None:
    item = first_not_finite(rows)
    if item is not None:
        raise BundleError(f"{where} holds NaN or infinity, for item index {item} first; make the bundle again")


def check_searches(index: SearchIndex, searches: Iterable[SearchParams]) -> None:
    """Refuses search parameters that leave places of a result empty, tried with random scores.

    Raises:
        BundleError: naming the parameters.
    """
    for params in searches:
        found = _least_found(index, params)
        if found < _enough(index, params):
            raise BundleError(
                f"the search for entry {params.entry} (ef {list(params.ef)}, rounds {list(params.rounds)}) finds "
                f"{found} items where top_k is {params.top_k}; raise ef, rounds or the number of seeds, or lower top_k"
            )


def fills(index: SearchIndex, params: SearchParams) -> bool:
    """Whether `check_searches` takes these parameters."""
    return _least_found(index, params) >= _enough(index, params)


def _enough(index: SearchIndex, params: SearchParams) -> float:
    return (1 - MAX_UNREACHABLE) * min(params.top_k, index.item_count)


def _least_found(index: SearchIndex, params: SearchParams) -> int:
    rng = np.random.default_rng(0)
    scorer = _RandomScorer(rng.random(index.item_count, np.float32))
    users = UserBatch(rng.standard_normal((_USERS, max(index.light_width, 1)), np.float32), None)
    return int(np.count_nonzero(beam_search(index, scorer, users, params).items >= 0, axis=1).min())


class _RandomScorer:
    """Gives each item the same random score for every user."""

    def __init__(self, scores: Float32Array) -> None:
        self._scores = scores

    def score(self, user_states: Float32Array, candidates: Int32Array) -> Float32Array:
        """See `nann.scorer.Scorer`."""
        return self._scores[candidates]


def _check_levels(where: str, graph: HnswGraph) -> None:
    """HNSW links every item on every layer that it is on: an item without links there only makes searches dearer."""
    for number, layer in enumerate(graph.layers):
        on_layer = graph.levels >= number
        size, alone = np.count_nonzero(on_layer), np.count_nonzero(on_layer & (np.diff(layer.indptr) == 0))
        if size > 1 and alone > 1 + MAX_UNREACHABLE * size:
            raise BundleError(
                f"{where}{alone:,} of the {size:,} items that {LEVELS_FILE} puts on layer {number} have no neighbours "
                "there; make the bundle again"
            )
