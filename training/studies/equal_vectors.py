"""Items with equal vectors: what a search finds on a bundle's graph, and on HNSW over every item."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from nann.beam_search import beam_search
from nann.exact_search import exact_search
from nann.graph import HnswGraph
from nann.metrics import coverage
from nann.reachability import Reachability
from nann.scorer import Float32Array, Int32Array
from nann.search_input import SearchIndex, UserBatch
from nann.search_params import SearchParams

from ..config import IndexConfig
from ..reports.store import Json
from ..reports.text import percent, table
from ..search.copies import Copies
from ..search.index import build_graph, build_hnsw, graph_from_hnswlib
from .runs import Runs, fit_params
from .settings import StudySettings
from .study import Study

_SEARCH = SearchParams(50, (10, 30, 100), (1, 3, 4))


@dataclass(frozen=True)
class EqualSettings:
    """The setting of docs/custom_scorer.md: clustered vectors, and users who score by the inner product.

    Attributes:
        items: how many, with their copies.
        width: numbers of a vector.
        clusters: how many.
        spread: standard deviation within a cluster; that of the centres is 1.
        users: how many users search.
        zero_shares: shares of the items whose vector becomes 0.
        copies: how many items have the same vector, in the last row.
        near: standard deviation of what copies differ by, in a row for near copies: half of the items, around 0.
    """

    items: int = 10_000
    width: int = 24
    clusters: int = 100
    spread: float = 0.6
    users: int = 500
    zero_shares: tuple[float, ...] = (0.0, 0.01, 0.05, 0.2, 0.5)
    copies: int = 10
    near: float = 1e-6

    def corpora(self) -> dict[str, Float32Array]:
        """The vectors of each row of the table, `float32[items, width]`, by its name."""
        rng = np.random.default_rng(0)
        centres = rng.normal(size=(self.clusters, self.width))
        noise = self.spread * rng.normal(size=(self.items, self.width))
        vectors = (centres[rng.integers(self.clusters, size=self.items)] + noise).astype(np.float32)
        order = rng.permutation(self.items)
        found = {}
        for share in self.zero_shares:
            name = f"{share:.0%} zero vectors" if share else "all vectors differ"
            found[name] = vectors.copy()
            found[name][order[: round(share * self.items)]] = 0
        distinct = vectors[: self.items // self.copies]
        found[f"{self.copies} copies of each"] = np.tile(distinct, (self.copies, 1))[np.argsort(order)]
        near = vectors.copy()
        near[order[: self.items // 2]] = self.near * rng.normal(size=(self.items // 2, self.width))
        found[f"50% near 0 (by {self.near:g})"] = near
        return found


class _InnerProducts:
    """A user state is a vector; the score of an item is the inner product with its vector."""

    def __init__(self, vectors: Float32Array) -> None:
        self._vectors = vectors

    def score(self, user_states: Float32Array, candidates: Int32Array) -> Float32Array:
        """See `nann.scorer.Scorer`."""
        scores: Float32Array = np.einsum("bcd,bd->bc", self._vectors[candidates], user_states, dtype=np.float32)
        return scores


def measure(settings: EqualSettings) -> Json:
    """Coverage, share of the items scored and unreachable items of both graphs, for each corpus."""
    states = np.random.default_rng(1).normal(size=(settings.users, settings.width)).astype(np.float32)
    users, index = UserBatch(states, None), IndexConfig()
    rows = []
    for name, vectors in settings.corpora().items():
        scorer = _InnerProducts(vectors)
        exact = exact_search(scorer, users, len(vectors), _SEARCH.top_k).items

        def searched(graph: HnswGraph, scorer: _InnerProducts = scorer, exact: Int32Array = exact) -> dict[str, Any]:
            found = beam_search(SearchIndex(graph, None), scorer, users, fit_params(_SEARCH, graph))
            return {
                "coverage": coverage(found.items, exact),
                "share_scored": float(found.items_scored.mean() / graph.item_count),
                **Reachability.of(graph).summary(),
            }

        copies = Copies.of(vectors)
        every = graph_from_hnswlib(build_hnsw(vectors, index, threads=1), index.entry_layer)
        bundles = build_graph(vectors, copies, index, threads=1)
        rows.append({"corpus": name, "copies": len(copies), "every": searched(every), "bundle": searched(bundles)})
    return {"settings": asdict(settings), "rows": rows}


def run(runs: Runs, settings: StudySettings) -> Json:
    """The result of `measure`; it depends on no model and no data set."""
    return measure(EqualSettings())


def markdown(result: Json) -> str:
    """A sentence and the table."""
    made = result["settings"]
    start = (
        f"{made['items']:,} clustered vectors of {made['width']} numbers; a score is the inner product with a user's "
        f"vector; top {_SEARCH.top_k}, ef {list(_SEARCH.ef)}, rounds {list(_SEARCH.rounds)}, {made['users']} users. "
        "HNSW over every item fills the lists of equal items with one another. A bundle's graph has one item of each "
        "vector, and the others hang from it."
    )
    graphs = (("every", "HNSW over every item"), ("bundle", "a bundle"))
    columns = [f"{words}: {what}" for _, words in graphs for what in ("coverage", "scored", "unreachable")]
    rows = (
        [
            row["corpus"],
            *(
                cell
                for key, _ in graphs
                for cell in (
                    percent(row[key]["coverage"], 1),
                    percent(row[key]["share_scored"], 1),
                    f"{row[key]['unreachable_items']:,}",
                )
            ),
        ]
        for row in result["rows"]
    )
    return f"{start}\n\n{table(['items', *columns], rows)}"


STUDY = Study(
    "equal",
    "Items with equal vectors",
    run,
    markdown,
    configs=lambda settings: [],
    inputs=lambda settings: asdict(EqualSettings()),
)
