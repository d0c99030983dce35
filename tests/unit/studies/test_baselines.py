from __future__ import annotations

import json

import numpy as np
import pytest
from support.written import drawn, lines, tables

from nann.exact_search import exact_search
from nann.search_input import SearchIndex, UserBatch
from nann.search_params import SearchParams
from nann.training.baselines.plain import Popular
from nann.training.config import IndexConfig
from nann.training.data.prepared import Queries
from nann.training.search.index import build_hnsw, graph_from_hnswlib
from nann.training.search.measured_users import MeasuredUsers
from nann.training.studies.measures import other_retrievers
from nann.training.studies.measures.other_retrievers import (
    ScoredPool,
    TwoTower,
    cascade_candidates,
    item_to_item_candidates,
)

ITEMS, USERS, WIDTH, TOP_K = 150, 7, 6, 10


class CountingScorer:
    """Negative squared distance between the user's state and the item; counts what it scores."""

    def __init__(self, vectors):
        self.vectors = vectors
        self.scored = 0

    def score(self, user_states, candidates):
        self.scored += int((candidates >= 0).sum())
        return -((self.vectors[candidates] - user_states[:, None]) ** 2).sum(axis=2)


@pytest.fixture(scope="module")
def vectors():
    return np.random.default_rng(1).normal(size=(ITEMS, WIDTH)).astype(np.float32)


@pytest.fixture(scope="module")
def states():
    return np.random.default_rng(2).normal(size=(USERS, WIDTH)).astype(np.float32)


@pytest.fixture(scope="module")
def behaviors():
    rows = np.random.default_rng(3).integers(ITEMS, size=(USERS, 12)).astype(np.int32)
    rows[:, :2] = -1
    rows[-1] = -1  # a user without history
    return rows


@pytest.fixture(scope="module")
def two_tower(vectors, states):
    """A model other than the judge: it sees half of the dimensions."""
    mask = np.arange(WIDTH) < WIDTH // 2
    return TwoTower((states * mask).astype(np.float32), (vectors * mask).astype(np.float32))


def test_a_cascade_over_all_items_is_exhaustive_scoring(vectors, states, two_tower):
    scorer = CountingScorer(vectors)
    exact = exact_search(scorer, UserBatch(states, None), ITEMS, TOP_K)
    pool = ScoredPool.of(scorer, states, cascade_candidates(two_tower, ITEMS))
    found = pool.best(ITEMS, TOP_K)
    np.testing.assert_array_equal(found.items, exact.items)
    np.testing.assert_array_equal(found.evaluations, ITEMS)


def test_cascade_takes_the_largest_inner_products(two_tower):
    products = two_tower.users @ two_tower.items.T
    found = cascade_candidates(two_tower, 20)
    assert found.dtype == np.int32
    for user in range(USERS):
        best = np.sort(products[user])[::-1][:20]
        np.testing.assert_allclose(products[user][found[user]], best, rtol=1e-5)


def test_cascade_finds_long_lists_whatever_the_norms():
    """hnswlib's inner-product space finds half of them if norms differ much, which would be unfair to the cascade."""
    rng = np.random.default_rng(4)
    items = (rng.normal(size=(4000, 16)) * rng.lognormal(sigma=0.5, size=(4000, 1))).astype(np.float32)
    users = rng.normal(size=(20, 16)).astype(np.float32)
    best = np.argsort(-(users @ items.T), axis=1)[:, :500]
    found = cascade_candidates(TwoTower(users, items), 500)
    shares = [np.isin(one, other).mean() for one, other in zip(best, found, strict=True)]
    assert np.mean(shares) > 0.95


def test_cascade_falls_back_to_brute_force_if_hnswlib_finds_too_few(two_tower, monkeypatch):
    class Poor:
        def set_ef(self, ef):
            pass

        def knn_query(self, vectors, k):
            raise RuntimeError("Cannot return the results in a contiguous 2D array")

    expected = cascade_candidates(two_tower, 20)
    monkeypatch.setattr(other_retrievers, "_index", lambda vectors: Poor())
    np.testing.assert_array_equal(cascade_candidates(two_tower, 20), expected)


def test_a_budget_takes_the_first_candidates_and_counts_evaluations(vectors, states, two_tower):
    scorer = CountingScorer(vectors)
    candidates = cascade_candidates(two_tower, 40)
    candidates[0, 5:] = -1  # a user with five candidates
    pool = ScoredPool.of(scorer, states, candidates)
    assert scorer.scored == 5 + 40 * (USERS - 1)
    found = pool.best(30, TOP_K)
    np.testing.assert_array_equal(found.evaluations, [5] + [30] * (USERS - 1))
    for user in range(USERS):
        row = candidates[user, :30]
        row = row[row >= 0]
        distance = ((vectors[row] - states[user]) ** 2).sum(axis=1)
        expected = row[np.argsort(distance, kind="stable")][:TOP_K]
        np.testing.assert_array_equal(
            found.items[user], np.pad(expected, (0, TOP_K - len(expected)), constant_values=-1)
        )


def test_item_to_item_takes_the_nearest_of_each_behavior_in_turn(vectors, behaviors):
    found = item_to_item_candidates(behaviors, vectors, 25)
    for user in range(USERS - 1):
        latest = list(dict.fromkeys(behaviors[user][behaviors[user] >= 0][::-1]))
        near = [np.argsort(((vectors - vectors[item]) ** 2).sum(axis=1), kind="stable") for item in latest]
        expected = list(dict.fromkeys(row[rank] for rank in range(ITEMS) for row in near))[:25]
        assert list(found[user]) == expected
        assert list(found[user][: len(latest)]) == latest  # the nearest of an item is the item
    np.testing.assert_array_equal(found[-1], -1)


def test_item_to_item_asks_for_more_neighbors_until_there_are_enough(vectors):
    # Two behaviours with the same neighbours: 2 n / 2 of each hold fewer than n distinct ones only after doubling.
    behaviors = np.array([[3, 3, 3]], np.int32)
    assert len(np.unique(item_to_item_candidates(behaviors, vectors, ITEMS))) == ITEMS


@pytest.fixture(scope="module")
def inputs(vectors, states, behaviors, two_tower):
    scorer = CountingScorer(vectors)
    counts = np.random.default_rng(4).integers(1, 50, ITEMS)
    targets = np.random.default_rng(5).integers(ITEMS, size=USERS).astype(np.int32)
    queries = Queries(
        behaviors,
        behaviors.astype(np.int64),
        np.zeros((USERS, 1), np.int32),
        np.arange(USERS + 1),
        targets,
        np.arange(USERS, dtype=np.int32),
        np.zeros(USERS + 1, np.int64),
        np.zeros(0, np.int32),
    )
    batch = UserBatch(states, behaviors)
    return {
        "index": SearchIndex(graph_from_hnswlib(build_hnsw(vectors, IndexConfig(m=8), threads=1), 1), None),
        "scorer": scorer,
        "users": MeasuredUsers(batch, queries, exact_search(scorer, batch, ITEMS, TOP_K).items),
        "item_vectors": vectors,
        "two_tower": two_tower,
        "popular": Popular.of(counts),
        "histories": {5: behaviors[:, -5:], 12: behaviors},
        "tuned": SearchParams(TOP_K, (10, 20), (1, 3)),
    }


def test_run_compares_all_at_equal_evaluations(inputs, tmp_path):
    result = other_retrievers.run(**inputs, budgets=[9, 20, 60, 10_000])  # 9 is below K
    json.dumps(result, allow_nan=False)
    assert set(result["curves"]) == {"nann", "cascade", "item_to_item", "popular_reranked"}
    assert set(result["baselines"]) == {*result["curves"], "popular", "personal_5", "personal_12"}
    nann = result["baselines"]["nann"]
    assert (nann["ef"], nann["rounds"]) == ([10, 20], [1, 3])
    for name in ("cascade", "popular_reranked"):
        assert result["baselines"][name]["evaluations"] == round(nann["evaluations"])
        points = result["curves"][name]
        assert [point["budget"] for point in points] == sorted({20, 60, round(nann["evaluations"]), ITEMS})
        # With every item as a candidate all of them are exhaustive scoring.
        assert points[-1]["coverage"] == 1
        assert points[-1]["recall"] == result["recall_all"]
        assert [point["coverage"] for point in points] == sorted(point["coverage"] for point in points)
    assert result["baselines"]["popular"]["evaluations"] == 0
    (table,) = tables(other_retrievers.table(result))
    assert table[:2] == [
        ["method", "scorer evaluations per user", "recall@10", "coverage@10"],
        ["every item scored", str(ITEMS), f"{result['recall_all']:.2%}", "100.00%"],
    ]
    assert [row[1:] for row in table[2:]] == [
        [f"{point['evaluations']:,.0f}", f"{point['recall']:.2%}", f"{point['coverage']:.2%}"]
        for point in result["baselines"].values()
    ]
    figure = drawn(other_retrievers.plot, result, tmp_path / "plot.png")
    assert lines(figure, 1) == [
        [(point["evaluations"], 100 * point["coverage"]) for point in points] for points in result["curves"].values()
    ]
