"""Graphs that items leave and join, against graphs that are built anew."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nann import UserBatch, beam_search, coverage, exact_search
from nann.graph import Layer
from nann.reachability import reachable_items
from nann.search_input import SearchIndex
from nann.search_params import SearchParams
from nann.training.config import IndexConfig
from nann.training.search.copies import Copies
from nann.training.search.index import build_graph
from nann.training.search.nearest import nearest
from nann.training.search.next_graph import next_graph
from nann.training.search.removal import without

ITEMS, WIDTH, TOP = 3000, 12, 20
CONFIG = IndexConfig(m=12, ef_construction=60)
RNG = np.random.default_rng(0)
VECTORS = RNG.standard_normal((ITEMS, WIDTH), np.float32)


class Nearness:
    """The nearer (L2) to the user, the better."""

    def __init__(self, vectors):
        self._vectors = vectors

    def score(self, user_states, candidates):
        return -((self._vectors[candidates] - user_states[:, None]) ** 2).sum(axis=2)


@pytest.fixture(scope="module")
def graph():
    return fresh(VECTORS)


def fresh(vectors, config=CONFIG):
    return build_graph(vectors, Copies.of(vectors), config, threads=1)


def recall(graph, vectors) -> float:
    """Of the nearest items of 200 users, by brute force."""
    users = UserBatch(np.random.default_rng(7).standard_normal((200, vectors.shape[1]), np.float32), None)
    layers = graph.entry_layer + 1
    params = SearchParams(TOP, (20,) * (layers - 1) + (40,), (1,) * (layers - 1) + (4,))
    scorer = Nearness(vectors)
    found = beam_search(SearchIndex(graph, None), scorer, users, params).items
    return coverage(found, exact_search(scorer, users, len(vectors), TOP).items)


def changed(vectors, removed: int, new: int, seed: int = 1):
    """The next corpus in any order: its vectors, and which old item each is."""
    rng = np.random.default_rng(seed)
    old = np.concatenate([rng.permutation(len(vectors))[removed:], np.full(new, -1)])
    old = rng.permutation(old)
    joined = rng.standard_normal((len(old), vectors.shape[1]), np.float32)
    return np.where(old[:, None] >= 0, vectors[old], joined), old


def test_a_graph_without_changes_is_the_same_to_the_bit(graph):
    same = next_graph(graph, VECTORS, VECTORS, np.arange(ITEMS), CONFIG)
    assert same.entry_layer == graph.entry_layer
    assert same.levels[same.hnsw_entry_point] == len(same.layers) - 1
    np.testing.assert_array_equal(same.levels, graph.levels)
    for one, other in zip(same.layers, graph.layers, strict=True):
        np.testing.assert_array_equal(one.indptr, other.indptr)
        np.testing.assert_array_equal(one.neighbors, other.neighbors)


@pytest.mark.parametrize(("removed", "new"), [(0, 30), (0, 1500), (30, 0), (1000, 0), (600, 600), (2900, 400)])
def test_searches_find_as_much_as_in_a_graph_that_is_built_anew(graph, removed, new):
    vectors, old = changed(VECTORS, removed, new)
    grown = next_graph(graph, VECTORS, vectors, old, CONFIG, threads=1)
    grown.validate()
    assert not np.any(~reachable_items(grown) & ((old < 0) | reachable_items(graph)[old])), "no item is lost"
    assert recall(grown, vectors) > recall(fresh(vectors), vectors) - 0.01
    assert max(np.diff(grown.layers[0].indptr)) <= 2 * CONFIG.m + 1, "one link of a repair at most"


def test_a_graph_may_name_any_item_as_its_entry_point(graph):
    """Our searches do not read it; hnswlib would start there."""
    vectors, old = changed(VECTORS, 10, 10)
    wrong = replace(graph, hnsw_entry_point=int(np.argmin(graph.levels)))
    assert recall(next_graph(wrong, VECTORS, vectors, old, CONFIG), vectors) > recall(graph, VECTORS) - 0.01


def test_many_small_changes_are_as_good_as_one(graph):
    vectors, current = VECTORS, graph
    for seed in range(10):
        following, old = changed(vectors, 150, 150, seed)
        current, vectors = next_graph(current, vectors, following, old, CONFIG, threads=1), following
    assert reachable_items(current).mean() >= reachable_items(graph).mean()
    assert recall(current, vectors) > recall(fresh(vectors), vectors) - 0.01


def test_a_graph_of_other_items_alone_is_built_anew(graph):
    vectors, old = changed(VECTORS, ITEMS, 200)
    grown, anew = next_graph(graph, VECTORS, vectors, old, CONFIG, threads=1), fresh(vectors)
    np.testing.assert_array_equal(grown.layers[0].neighbors, anew.layers[0].neighbors)


@given(st.integers(0, 2**31), st.integers(1, 40), st.integers(0, 40), st.integers(1, 6))
@settings(max_examples=30, deadline=None)
def test_items_with_equal_vectors_come_and_go(seed, count, joining, different):
    """Few different vectors: most items are copies, and an original may go before its copies."""
    rng = np.random.default_rng(seed)
    values = rng.standard_normal((different, 3), np.float32)
    config = IndexConfig(m=2, ef_construction=10)
    vectors = values[rng.integers(different, size=count)]
    old = rng.permutation(np.concatenate([np.flatnonzero(rng.random(count) < 0.6), np.full(joining, -1)]))
    if not len(old):
        return
    following = np.where(old[:, None] >= 0, vectors[old], values[rng.integers(different, size=len(old))])
    grown = next_graph(fresh(vectors, config), vectors, following, old, config, threads=1)
    grown.validate()
    assert grown.item_count == len(old)
    assert reachable_items(grown).all()


def test_who_loses_a_neighbour_gets_one_of_its_neighbours():
    """Items on a line: 2 goes, and 1 and 3 are linked; 0 has all that it had."""
    vectors = np.arange(5, dtype=np.float32)[:, None]
    lists = [[1], [0, 2], [1, 3, 4], [2, 4], [3]]
    layer = Layer.of(np.array([len(each) for each in lists]), np.concatenate(lists).astype(np.int32))
    left = without(layer, np.arange(5) == 2, vectors, most=4)
    assert [left.neighbors_of(item).tolist() for item in range(5)] == [[1], [0, 3], [], [4, 1], [3]]


def test_a_node_that_loses_all_neighbours_keeps_a_link():
    vectors = np.arange(4, dtype=np.float32)[:, None]
    lists = [[1, 2], [3], [3], [1, 2]]
    layer = Layer.of(np.array([2, 1, 1, 2]), np.concatenate(lists).astype(np.int32))
    left = without(layer, np.isin(np.arange(4), [1, 2]), vectors, most=1)
    assert [left.neighbors_of(item).tolist() for item in range(4)] == [[3], [], [], []]


@pytest.mark.parametrize(("count", "wanted"), [(5, 8), (255, 3), (257, 1), (5000, 8), (5000, 40)])
def test_the_nearest_items_are_those_of_sorting_all(count, wanted):
    keys, asked = (RNG.standard_normal((each, 4), np.float32) for each in (count, 300))
    items = np.sort(RNG.permutation(count)[: count - 1])
    away = ((keys[items] - asked[:, None]) ** 2).sum(axis=2)
    expected = items[np.argsort(away, axis=1, kind="stable")[:, :wanted]]
    np.testing.assert_array_equal(nearest(keys, items, asked, wanted), expected)
