"""Checks that a bundle makes sense. Its hashes say that the files are those that were written, and nothing more."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from nann.beam_search import beam_search
from nann.bundle import ITEM_IDS_FILE, LIGHT_VECTORS_FILE, Bundle
from nann.errors import BundleError
from nann.graph import LEVELS_FILE, HnswGraph
from nann.reachability import MAX_UNREACHABLE, Reachability
from nann.scorer import Float32Array, Int32Array
from nann.search_input import SearchIndex, UserBatch
from nann.search_params import SearchParams

_USERS = 4
_CHUNK = 1 << 18


def check_servable(bundle: Bundle) -> None:
    """Refuses a bundle whose answers would be nonsense. It reads ids, graph and light vectors once, and no ONNX file.

    Raises:
        BundleError: naming the file or the setting, what it holds and what was expected.
    """
    where = f"{bundle.path}: "
    bundle.id_kind.check(bundle.item_ids, f"{where}{ITEM_IDS_FILE}")
    light = bundle.light_vectors
    for start in range(0, 0 if light is None else len(light), _CHUNK):
        assert light is not None
        broken = np.flatnonzero(~np.isfinite(light[start : start + _CHUNK]).all(axis=1))
        if broken.size:
            raise BundleError(
                f"{where}{LIGHT_VECTORS_FILE} holds NaN or infinity, for item index {start + broken[0]} first; make "
                "the bundle again"
            )
    _check_levels(where, bundle.graph)
    Reachability.require(bundle.graph)
    check_searches(bundle.index, bundle.search_by_entry.values())


def check_searches(index: SearchIndex, searches: Iterable[SearchParams]) -> None:
    """Refuses search parameters that leave places of a result empty, tried with random scores.

    Raises:
        BundleError: naming the parameters.
    """
    rng = np.random.default_rng(0)
    scorer = _RandomScorer(rng.random(index.item_count, np.float32))
    users = UserBatch(rng.standard_normal((_USERS, max(index.light_width, 1)), np.float32), None)
    for params in searches:
        found = np.count_nonzero(beam_search(index, scorer, users, params).items >= 0, axis=1).min()
        wanted = min(params.top_k, index.item_count)
        if found < (1 - MAX_UNREACHABLE) * wanted:
            raise BundleError(
                f"the search for entry {params.entry} (ef {list(params.ef)}, rounds {list(params.rounds)}) finds "
                f"{found} items where top_k is {params.top_k}; raise ef, rounds or the number of seeds, or lower top_k"
            )


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
