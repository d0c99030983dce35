"""Items with equal vectors: the graph has one of each, and the others hang from it."""

from __future__ import annotations

import numpy as np
import pytest
from support.searching import make_graph

from nann import UserBatch, beam_search, coverage, exact_search
from nann.graph import Layer
from nann.reachability import reachable_items
from nann.search_input import SearchIndex
from nann.search_params import SearchParams
from nann.training.config import IndexConfig
from nann.training.search.copies import Copies
from nann.training.search.index import build_graph


def test_equal_rows_share_the_first_of_them():
    vectors = np.array([[2, 1], [0, 0], [2, 1], [1, 2], [-0.0, 0], [2, 1]], np.float32)
    copies = Copies.of(vectors)
    np.testing.assert_array_equal(copies.originals, [0, 1, 3])
    np.testing.assert_array_equal(copies.original_of, [0, 1, 0, 2, 1, 0])
    assert len(copies) == 3


def test_copies_hang_from_their_original_in_a_tree():
    """Originals 1 and 4 link to each other; 0 has no copy; the copies of 1 are 2, 3, 5 and 6."""
    copies = Copies(np.array([0, 1, 4]), np.array([0, 1, 1, 1, 2, 1, 1]))
    graph = make_graph([[[1], [0, 2], [1]], [[2], [], [0]]], [1, 0, 1], entry_layer=1)
    attached = copies.attach(graph, fan_out=2)
    ground, upper = ([layer.neighbors_of(item).tolist() for item in range(7)] for layer in attached.layers)
    assert ground == [[1], [0, 4, 2, 3], [5, 6, 1, 0, 4], [1, 0, 4], [1], [2, 0, 4], [2, 0, 4]]
    assert upper == [[4], [], [], [], [0], [], []]
    np.testing.assert_array_equal(attached.levels, [1, 0, 0, 0, 1, 0, 0])


def test_a_graph_without_copies_stays_as_it_is():
    graph = make_graph([[[1], [0]]], [0, 0], entry_layer=0)
    assert Copies.of(np.eye(2, dtype=np.float32)).attach(graph, fan_out=2) is graph


def test_a_search_does_not_score_every_copy_of_a_few_vectors():
    """The graph of two vectors has one layer; with the copies it has another above, of the two alone."""
    copies = Copies(np.array([0, 2]), np.array([0, 0, 1, 0, 0]))
    attached = copies.attach(make_graph([[[1], [0]]], [0, 0], entry_layer=0), fan_out=2)
    assert (attached.entry_layer, attached.entry_points.tolist()) == (1, [0, 2])
    assert reachable_items(attached).all()


class DotScorer:
    """The inner product of item vector and user state."""

    def __init__(self, vectors):
        self._vectors = vectors

    def score(self, user_states, candidates):
        return np.einsum("bcd,bd->bc", self._vectors[candidates], user_states).astype(np.float32)


def clustered(count=3000, width=24):
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(60, width))
    return (centres[rng.integers(60, size=count)] + 0.6 * rng.normal(size=(count, width))).astype(np.float32)


def covered(vectors):
    """Coverage@20 of a search, and the share of the items that any search can reach."""
    graph = build_graph(vectors, Copies.of(vectors), IndexConfig(m=16), threads=1)
    users = UserBatch(np.random.default_rng(1).normal(size=(100, vectors.shape[1])).astype(np.float32), None)
    layers = graph.entry_layer + 1
    params = SearchParams(20, (10, 30, 60)[-layers:], (1, 3, 4)[-layers:])
    scorer = DotScorer(vectors)
    found = beam_search(SearchIndex(graph, None), scorer, users, params)
    return coverage(found.items, exact_search(scorer, users, len(vectors), 20).items), reachable_items(graph).mean()


@pytest.mark.parametrize("share", [0.01, 0.05, 0.2, 0.5, 0.99])
def test_zero_vectors_cost_no_coverage(share):
    vectors = clustered()
    without, _ = covered(vectors)
    vectors[np.random.default_rng(2).permutation(len(vectors))[: int(share * len(vectors))]] = 0
    found, reached = covered(vectors)
    assert reached >= 0.998
    assert found >= without - 0.02


def test_ten_copies_of_each_vector_cost_no_coverage():
    vectors = clustered()
    without, _ = covered(vectors)
    found, reached = covered(np.tile(vectors[:300], (10, 1)))
    assert reached >= 0.998
    assert found >= without - 0.02


def test_equal_best_items_are_found_in_the_order_of_their_indices():
    """The user scores every vector but zero below 0: the best 20 are the first 20 of 1,500 zero vectors."""
    vectors = np.abs(clustered())
    vectors[::2] = 0
    graph = build_graph(vectors, Copies.of(vectors), IndexConfig(m=16), threads=1)
    users = UserBatch(np.full((1, vectors.shape[1]), -1, np.float32), None)
    layers = graph.entry_layer + 1
    params = SearchParams(20, (10, 30, 60)[-layers:], (1, 3, 4)[-layers:])
    found = beam_search(SearchIndex(graph, None), DotScorer(vectors), users, params)
    np.testing.assert_array_equal(found.items[0], np.arange(0, 40, 2))


def test_links_are_appended_to_the_lists_of_their_sources():
    layer = Layer(np.array([0, 1, 1, 3], np.int32), np.array([2, 0, 1], np.int32))
    more = layer.with_links(np.array([2, 0, 2]), np.array([2, 1, 0]))
    assert [more.neighbors_of(item).tolist() for item in range(3)] == [[2, 1], [], [0, 1, 2, 0]]
