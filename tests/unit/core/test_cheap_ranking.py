"""Rankings without the scorer."""

import numpy as np
import pytest
from support.searching import make_graph, random_graph

from nann.cheap_ranking import rank_by_light_score, rank_by_neighbourhood
from nann.errors import ScorerError
from nann.search_input import SearchIndex, UserBatch
from nann.search_params import SearchParams, SeedParams


def neighbourhood(graph, own_items, top_k):
    states = np.zeros((len(own_items), 1), np.float32)
    return rank_by_neighbourhood(SearchIndex(graph, None), UserBatch(states, own_items), top_k)


def visits_by_matrices(graph, own):
    """Expected visits of two steps, each taken with chance 1/2, by dense matrices."""
    step = np.zeros((graph.item_count, graph.item_count))
    for item in range(graph.item_count):
        neighbors = graph.layers[0].neighbors_of(item)
        for neighbor in neighbors:
            step[item, neighbor] += 1 / len(neighbors)
    start = np.bincount(own, minlength=graph.item_count) / len(own)
    return start @ (np.eye(len(step)) + step / 2 + step @ step / 4)


@pytest.mark.parametrize("seed", range(5))
def test_the_neighbourhood_is_ranked_by_a_walks_expected_visits(seed):
    rng = np.random.default_rng(seed)
    graph = random_graph(rng, 60, 2, 5)
    own = rng.integers(0, 60, (3, 7)).astype(np.int32)
    items, scores = neighbourhood(graph, np.pad(own, ((0, 0), (2, 0)), constant_values=-1), 60)
    for row in range(3):
        visits = visits_by_matrices(graph, own[row])
        found = items[row][items[row] != -1]
        np.testing.assert_array_equal(np.sort(found), np.flatnonzero(visits))
        np.testing.assert_allclose(scores[row, : len(found)], visits[found], rtol=1e-6)
        assert (np.diff(scores[row, : len(found)]) <= 0).all()
        assert (scores[row, len(found) :] == np.finfo(np.float32).min).all()


def test_own_items_first_and_what_is_near_to_several_before_what_is_near_to_one():
    graph = make_graph([[[2, 3], [3, 4], [], [], []]], [0] * 5)
    items, _ = neighbourhood(graph, np.array([[0, 1, 1], [-1, -1, -1]], np.int32), 5)
    np.testing.assert_array_equal(items, [[1, 0, 3, 4, 2], [-1] * 5])
    items, _ = rank_by_neighbourhood(SearchIndex(graph, None), UserBatch(np.zeros((2, 1), np.float32), None), 5)
    np.testing.assert_array_equal(items, np.full((2, 5), -1))


def test_the_light_score_ranks_each_user_to_its_own_top_k():
    rng = np.random.default_rng(0)
    graph = random_graph(rng, 80, 1, 8)
    vectors, users = rng.normal(size=(80, 4)).astype(np.float32), rng.normal(size=(2, 4)).astype(np.float32)
    params = [SearchParams(3, (30,), (1,)), SearchParams(5, (10,), (1,), SeedParams(2, 40))]
    index, batch = SearchIndex(graph, vectors), UserBatch(np.pad(users, ((0, 0), (1, 0))), None)
    items, scores = rank_by_light_score(index, batch, params)
    exact = np.argsort(-(users @ vectors.T), axis=1)
    np.testing.assert_array_equal(items, [[*exact[0, :3], -1, -1], exact[1, :5]])
    np.testing.assert_allclose(scores[1], (users @ vectors.T)[1, exact[1, :5]], rtol=1e-5)
    with pytest.raises(ScorerError, match="holds NaN"):
        rank_by_light_score(index, UserBatch(np.full((2, 5), np.nan, np.float32), None), params)
