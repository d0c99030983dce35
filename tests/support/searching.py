"""Scorers, random graphs and the paper's pseudocode that the tests of all searches share."""

import numpy as np
from hypothesis import strategies as st

from nann.graph import HnswGraph, Layer
from nann.search_input import UserBatch
from nann.search_params import SearchParams
from nann.signature import PADDING_SCORE


class TableScorer:
    """Scores by lookup in `float32[users, N]`; a user's state is its row in the table. Records every call."""

    def __init__(self, table):
        self.table = np.asarray(table, np.float32)
        self.calls = []

    def states(self, rows=None):
        rows = np.arange(len(self.table)) if rows is None else np.asarray(rows)
        return rows.astype(np.float32)[:, None]

    def users(self, rows=None):
        return UserBatch(self.states(rows), None)

    def score(self, user_states, candidates):
        assert candidates.dtype == np.int32
        assert candidates.flags.c_contiguous
        assert user_states.flags.c_contiguous
        assert len(user_states) == len(candidates)
        assert (candidates != -1).any(axis=0).all(), "a column of nothing but padding"
        assert (candidates != -1).any(axis=1).all(), "a user without candidates"
        self.calls.append(candidates.copy())
        scores = self.table[user_states[:, 0].astype(int)[:, None], candidates]
        # Scores at padded positions are ignored, so the most harmful value is put there.
        return np.where(candidates == -1, np.float32(np.nan), scores)


class L2Scorer:
    """Minus the squared L2 distance; a user's state is a query vector."""

    def __init__(self, vectors):
        self.vectors = vectors

    def score(self, user_states, candidates):
        difference = self.vectors[candidates] - user_states[:, None, :]
        return -np.einsum("bcd,bcd->bc", difference, difference)


class BrokenScorer:
    def __init__(self, answer):
        self.answer = answer

    def score(self, user_states, candidates):
        return self.answer(candidates)


BROKEN_ANSWERS = [
    (lambda c: np.zeros((1, 1), np.float32), r"the scorer returned float32\[1, 1\]; expected .* float32\[2, \d+\]"),
    (lambda c: np.zeros(c.shape), r"the scorer returned float64\[2, \d+\]; expected .* float32\[2, \d+\]"),
    (lambda c: [[0.0]], r"the scorer returned list; expected a NumPy array float32"),
    (lambda c: np.full(c.shape, np.nan, np.float32), r"returned NaN for \d+ of \d+ candidates, item \d+ among them"),
]


def make_graph(layers, levels, entry_layer=None, hnsw_entry_point=None):
    """A graph from neighbour lists, ground layer first."""
    levels = np.array(levels, np.uint8)
    csr = []
    for lists in layers:
        indptr = np.cumsum([0, *map(len, lists)]).astype(np.int32)
        csr.append(Layer(indptr, np.array([item for row in lists for item in row], np.int32)))
    top = len(layers) - 1
    graph = HnswGraph(
        tuple(csr),
        levels,
        top if entry_layer is None else entry_layer,
        int(np.flatnonzero(levels >= top)[0]) if hnsw_entry_point is None else hnsw_entry_point,
    )
    graph.validate()
    return graph


def random_graph(rng, item_count, layer_count, degree, entry_layer=None):
    """Neighbour lists of 0 to `degree` random items, duplicates included; every layer holds at least one item."""
    levels = np.minimum(rng.geometric(0.6, item_count) - 1, layer_count - 1)
    levels[rng.integers(item_count)] = layer_count - 1
    layers = []
    for layer in range(layer_count):
        on_layer = np.flatnonzero(levels >= layer)
        sizes = np.where(levels >= layer, rng.integers(0, degree + 1, item_count), 0)
        layers.append([rng.choice(on_layer, size).tolist() for size in sizes])
    return make_graph(layers, levels, entry_layer)


@st.composite
def walks(draw):
    """A small random graph and a scorer with few distinct scores, so that there are many ties."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    layer_count = draw(st.integers(1, 4))
    graph = random_graph(
        rng, draw(st.integers(1, 90)), layer_count, draw(st.integers(0, 6)), draw(st.integers(0, layer_count - 1))
    )
    users = draw(st.integers(1, 5))
    scorer = TableScorer(rng.integers(0, draw(st.sampled_from([2, 10, 10_000])), (users, graph.item_count)))
    return graph, scorer


def best(items, score, count):
    return sorted(items, key=lambda item: (-score[item], item))[:count]


def search_layer(graph, score, ep, ef, layer, rounds, counted):
    """Algorithm 2. `counted` collects the sizes of the scored sets."""
    visited, frontier, results = set(ep), set(ep), set(ep)
    for _ in range(rounds):
        new = {int(n) for c in frontier for n in graph.layers[layer].neighbors_of(c)} - visited
        visited |= new
        results = set(best(results | new, score, ef))
        frontier = results & new
        if new:
            counted.append(len(new))
        if not frontier:
            break
    return results


def knn_search(graph, score, params):
    """Algorithm 1: items best first, and how many were scored in each round."""
    counted = [len(graph.entry_points)]
    results = set(best(graph.entry_points.tolist(), score, params.ef[0]))
    for place, layer in enumerate(range(graph.entry_layer, -1, -1)):
        # All of the entry layer is scored already; scoring it again in its rounds is not counted.
        scored_here = [] if layer == graph.entry_layer else counted
        results = search_layer(graph, score, results, params.ef[place], layer, params.rounds[place], scored_here)
    return best(results, score, params.top_k), counted


@st.composite
def some_params(draw, layers):
    ef = draw(st.lists(st.integers(1, 30), min_size=layers, max_size=layers))
    rounds = draw(st.lists(st.integers(0, 4), min_size=layers, max_size=layers))
    return SearchParams(draw(st.integers(1, ef[-1])), tuple(ef), tuple(rounds))


def assert_row(result, row, items, score):
    expected = np.full(result.items.shape[1], -1)
    expected[: len(items)] = items
    np.testing.assert_array_equal(result.items[row], expected)
    np.testing.assert_array_equal(result.scores[row], np.where(expected == -1, PADDING_SCORE, score[expected]))
