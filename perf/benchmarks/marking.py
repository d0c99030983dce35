"""What the bitmap saves (paper, section 4.2.2): visited marks in a bitmap, in NumPy's sets and in Python's sets.

Marking alone is timed on recorded expansions of Table 1's searches, and on a planted graph of 1.3 million items with 32
neighbours each and a frontier of 1,000. Whole searches of Table 1 are timed with a scorer that only looks up recorded
scores, so that the time is that of the search. All three kinds of marks read the same CSR arrays, as a server has them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from nann.beam_search import beam_search
from nann.graph import HnswGraph, Layer
from nann.item_sets import bitmap_words
from nann.kernels import NATIVE, Float32Array, Int32Array, Kernels, Uint64Array
from nann.scorer import Scorer
from nann.search_input import SearchIndex, UserBatch
from nann.search_params import SearchParams
from nann.signature import PADDING_ITEM

from ...training.reports.alternate import alternate, cold, warm
from ...training.reports.text import table
from ..benchmark import Benchmark, BenchSettings, Json, Say
from ..corpora.offline import OfflineUsers

TABLE1_SEARCH = SearchParams(200, (200, 500, 1000), (1, 1, 2))
"""The paper's Table 1."""
LABELS = {"native": "bitmap, native kernel", "numpy": "set operations in NumPy", "python": "Python's sets"}
_USERS = 8
_PAPER_ITEMS, _PAPER_DEGREE, _PAPER_FRONTIER, _EXPANSIONS = 1_300_000, 32, 1000, 16


@dataclass(frozen=True)
class Expansion:
    """One expansion in the search of one user.

    Attributes:
        start: `int32[1, X]`, the only visited items when the layer begins; None within a layer.
        layer: number of the layer.
        frontier: `int32[1, F]`.
    """

    start: Int32Array | None
    layer: int
    frontier: Int32Array


class _Marks(ABC):
    """Visited marks of one user. In a search they stand in for the native kernel, and ignore the search's bitmap."""

    count = staticmethod(NATIVE.implementation.count)
    expand_through = staticmethod(NATIVE.implementation.expand_through)
    merge_top = staticmethod(NATIVE.implementation.merge_top)
    light_walk = staticmethod(NATIVE.implementation.light_walk)
    light_scan = staticmethod(NATIVE.implementation.light_scan)

    def __init__(self, graph: HnswGraph) -> None:
        self._graph = graph

    @abstractmethod
    def mark(self, visited: Uint64Array, items: Int32Array) -> None:
        """Clears the marks, then marks `int32[1, X]`: a search of one user marks only where a layer begins."""

    @abstractmethod
    def expand(
        self, indptr: Int32Array, neighbors: Int32Array, visited: Uint64Array, frontier: Int32Array, threads: int = 1
    ) -> Int32Array:
        """Marks and returns the unvisited neighbours of `int32[1, F]`: `int32[1, C]`."""

    def replay(self, expansions: Sequence[Expansion]) -> list[Int32Array]:
        """What each expansion finds."""
        bitmap = np.empty((1, 0), np.uint64)
        found = []
        for one in expansions:
            if one.start is not None:
                self.mark(bitmap, one.start)
            layer = self._graph.layers[one.layer]
            found.append(self.expand(layer.indptr, layer.neighbors, bitmap, one.frontier))
        return found


class NativeMarks(_Marks):
    """A bitmap and the native kernel, as served."""

    def __init__(self, graph: HnswGraph) -> None:
        super().__init__(graph)
        self._visited = np.zeros((1, bitmap_words(graph.item_count)), np.uint64)

    def mark(self, visited: Uint64Array, items: Int32Array) -> None:
        """See `_Marks`."""
        self._visited[:] = 0
        NATIVE.mark(self._visited, items)

    def expand(
        self, indptr: Int32Array, neighbors: Int32Array, visited: Uint64Array, frontier: Int32Array, threads: int = 1
    ) -> Int32Array:
        """See `_Marks`."""
        return NATIVE.expand(indptr, neighbors, self._visited, frontier)


class NumpyMarks(_Marks):
    """A sorted array: gathers all neighbour lists at once, then `unique`, `setdiff1d` and `union1d`."""

    def mark(self, visited: Uint64Array, items: Int32Array) -> None:
        """See `_Marks`."""
        self._visited = np.unique(items[items != PADDING_ITEM])

    def expand(
        self, indptr: Int32Array, neighbors: Int32Array, visited: Uint64Array, frontier: Int32Array, threads: int = 1
    ) -> Int32Array:
        """See `_Marks`; ascending."""
        nodes = frontier[frontier != PADDING_ITEM]
        starts, counts = indptr[nodes], indptr[nodes + 1] - indptr[nodes]
        ends = np.cumsum(counts)
        # Positions of all lists, one after the other, without a loop over them.
        places = np.repeat(starts - ends + counts, counts) + np.arange(ends[-1] if len(ends) else 0)
        fresh = np.setdiff1d(np.unique(neighbors[places]), self._visited, assume_unique=True)
        self._visited = np.union1d(self._visited, fresh)
        return fresh[None, :]


class PythonMarks(_Marks):
    """A `set` of `int`."""

    def mark(self, visited: Uint64Array, items: Int32Array) -> None:
        """See `_Marks`."""
        self._visited = set(_items(items))

    def expand(
        self, indptr: Int32Array, neighbors: Int32Array, visited: Uint64Array, frontier: Int32Array, threads: int = 1
    ) -> Int32Array:
        """See `_Marks`; in no order."""
        lists = (neighbors[indptr[item] : indptr[item + 1]].tolist() for item in _items(frontier))
        fresh: set[int] = set().union(*lists) - self._visited
        self._visited |= fresh
        return np.fromiter(fresh, np.int32, len(fresh))[None, :]


class RecordedScorer:
    """Records one user's scores from `scorer`, then looks them up in about 1 ns per candidate."""

    def __init__(self, scorer: Scorer, item_count: int) -> None:
        self._scorer: Scorer | None = scorer
        self._scores = np.zeros(item_count, np.float32)

    def stop_recording(self) -> None:
        """From now on no score is computed."""
        self._scorer = None

    def score(self, user_states: Float32Array, candidates: Int32Array) -> Float32Array:
        """See `nann.scorer.Scorer`."""
        if self._scorer is not None:
            self._scores[candidates] = self._scorer.score(user_states, candidates)
        return self._scores.take(candidates, mode="wrap")


def record(index: SearchIndex, scorer: Scorer, user: UserBatch, params: SearchParams) -> list[Expansion]:
    """The expansions of one user's search."""
    recorder = _Recorder(index.graph)
    beam_search(index, scorer, user, params, kernels=Kernels("recorder", recorder))
    return recorder.expansions


def paper_setting(item_count: int, degree: int, frontier: int, count: int) -> tuple[HnswGraph, list[Expansion]]:
    """A planted graph and `count` expansions on it, each with its frontier as the only visited items.

    Items lie on a ring, near their neighbours, so that the lists of a frontier overlap as in a search: about a third of
    the neighbours are not visited yet. An item's number is unrelated to its place on the ring.
    """
    rng = np.random.default_rng(0)
    item_at = rng.permutation(item_count).astype(np.int32)  # place on the ring -> item
    neighbors = np.empty((item_count, degree), np.int32)
    near = rng.normal(0, 20 * degree, (item_count, degree)).astype(np.int32)
    neighbors[item_at] = item_at[(np.arange(item_count, dtype=np.int32)[:, None] + near) % item_count]
    indptr = np.arange(0, item_count * degree + 1, degree, dtype=np.int32)
    graph = HnswGraph((Layer(indptr, neighbors.reshape(-1)),), np.zeros(item_count, np.uint8), 0, 0)
    expansions = []
    for place in rng.integers(0, item_count, count):
        around = (place + rng.normal(0, 3 * frontier, frontier).astype(np.int64)) % item_count
        nodes = np.unique(item_at[around])[None, :]
        expansions.append(Expansion(nodes, 0, nodes))
    return graph, expansions


def time_marking(graph: HnswGraph, expansions: Sequence[Expansion], repeats: int) -> Json:
    """Times the three kinds of marks on the same expansions, after checking that they find the same items."""
    marks: dict[str, _Marks] = {
        "native": NativeMarks(graph),
        "numpy": NumpyMarks(graph),
        "python": PythonMarks(graph),
    }
    found = {name: [np.sort(items) for items in one.replay(expansions)] for name, one in marks.items()}
    for name, items in found.items():
        assert all(map(np.array_equal, items, found["native"])), f"{name} marks other items than the bitmap"
    replays = {name: partial(one.replay, expansions) for name, one in marks.items()}
    return {
        "neighbors": sum(_neighbor_count(graph, one) for one in expansions),
        "fresh": sum(items.size for items in found["native"]),
        "ms": alternate(replays, repeats, warm),
        "cold_ms": alternate(replays, repeats, cold),
    }


def time_searches(
    index: SearchIndex, scorers: Sequence[Scorer], users: UserBatch, params: SearchParams, repeats: int
) -> dict[str, float]:
    """Median ms to search for all users, one by one, with each kind of marks; their answers must be the same."""
    kernels = {
        "native": NATIVE,
        "numpy": Kernels("numpy sets", NumpyMarks(index.graph)),
        "python": Kernels("python sets", PythonMarks(index.graph)),
    }

    def search_with(kernel: Kernels) -> Callable[[], list[Int32Array]]:
        pairs = list(zip(scorers, _one_by_one(users), strict=True))
        return lambda: [beam_search(index, one, user, params, kernels=kernel).items for one, user in pairs]

    answers = {name: np.concatenate(search_with(kernel)()) for name, kernel in kernels.items()}
    assert all(np.array_equal(items, answers["native"]) for items in answers.values()), "the searches' answers differ"
    return alternate({name: search_with(kernel) for name, kernel in kernels.items()}, repeats)


def _run(settings: BenchSettings, say: Say) -> Json:
    say("marking: the paper's setting")
    paper_graph, expansions = paper_setting(_PAPER_ITEMS, _PAPER_DEGREE, _PAPER_FRONTIER, _EXPANSIONS)
    paper = time_marking(paper_graph, expansions, settings.repeats)
    del paper_graph, expansions
    users = OfflineUsers.load(settings.table1, _USERS)
    index, graph = users.bundle.index, users.bundle.graph
    say(f"marking: searches on {graph.item_count:,} items")
    scorers = [RecordedScorer(users.scorer, graph.item_count) for _ in range(_USERS)]
    searches = [record(index, *one, TABLE1_SEARCH) for one in zip(scorers, _one_by_one(users.batch), strict=True)]
    for scorer in scorers:
        scorer.stop_recording()
    return {
        "paper": {**paper, "items": _PAPER_ITEMS, "degree": _PAPER_DEGREE, "frontier": _PAPER_FRONTIER},
        "paper_expansions": _EXPANSIONS,
        "items": graph.item_count,
        "degree": len(graph.layers[0].neighbors) / graph.item_count,
        "users": _USERS,
        "replayed": time_marking(graph, [one for search in searches for one in search], settings.repeats),
        "search": {"ms": time_searches(index, scorers, users.batch, TABLE1_SEARCH, settings.repeats)},
    }


def _markdown(result: Json) -> str:
    users, planted = result["users"], result["paper_expansions"]
    columns = {
        "marking": (result["replayed"]["ms"], users),
        "marking, cold": (result["replayed"]["cold_ms"], users),
        "planted": (result["paper"]["ms"], planted),
        "planted, cold": (result["paper"]["cold_ms"], planted),
        "search": (result["search"]["ms"], users),
    }
    rows = [
        [LABELS[name], *(f"{ms[name] / count:.2f} ({ms[name] / ms['native']:.1f})" for ms, count in columns.values())]
        for name in LABELS
    ]
    paper, replayed = result["paper"], result["replayed"]
    return (
        f"Marking: the expansions of a user's search of Table 1 on {result['items']:,} synthetic items with "
        f"{result['degree']:.1f} neighbours on average; they read {replayed['neighbors'] / users:,.0f} neighbours, "
        f"{replayed['fresh'] / replayed['neighbors']:.0%} of them not visited before. Planted: one expansion of a "
        f"frontier of {paper['frontier']:,} on {paper['items']:,} items with {paper['degree']} neighbours each, "
        f"{paper['fresh'] / paper['neighbors']:.0%} of them not visited before. Each is timed right after a run of "
        "itself; cold: after other memory was written, so that it also waits for the neighbour lists. Search: a whole "
        "search of Table 1 with scores looked up. All three find the same items. Milliseconds per user or expansion, "
        f"and in brackets as multiples of the native kernel's.\n\n{table(['marks', *columns], rows)}"
    )


def _headline(result: Json) -> dict[str, Json]:
    ms = result["replayed"]["ms"]
    return {"marking": {f"native_over_{name}": ms[name] / ms["native"] for name in ("numpy", "python")}}


BENCHMARK = Benchmark("marking", "Visited marks: bitmap against sets", _run, _markdown, headline=_headline)


class _Recorder:
    """Passes everything on to the native kernel and records what is marked and expanded."""

    def __init__(self, graph: HnswGraph) -> None:
        self.expansions: list[Expansion] = []
        self._layers = {id(layer.indptr): number for number, layer in enumerate(graph.layers)}
        self._start: Int32Array | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(NATIVE.implementation, name)

    def mark(self, visited: Uint64Array, items: Int32Array) -> None:
        self._start = items.copy()
        NATIVE.mark(visited, items)

    def expand(
        self, indptr: Int32Array, neighbors: Int32Array, visited: Uint64Array, frontier: Int32Array, threads: int = 1
    ) -> Int32Array:
        self.expansions.append(Expansion(self._start, self._layers[id(indptr)], frontier.copy()))
        self._start = None
        return NATIVE.expand(indptr, neighbors, visited, frontier)


def _one_by_one(users: UserBatch) -> list[UserBatch]:
    return [users[row : row + 1] for row in range(len(users))]


def _items(row: Int32Array) -> list[int]:
    return [item for item in row[0].tolist() if item != PADDING_ITEM]


def _neighbor_count(graph: HnswGraph, one: Expansion) -> int:
    indptr, nodes = graph.layers[one.layer].indptr, one.frontier[one.frontier != PADDING_ITEM]
    return int((indptr[nodes + 1] - indptr[nodes]).sum())
