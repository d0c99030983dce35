"""HNSW-retrieval against hnswlib itself, and against the textbook's loop with sets."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.searching import BROKEN_ANSWERS, BrokenScorer, L2Scorer, TableScorer, make_graph, walks

from nann.best_first_search import best_first_search
from nann.errors import RequestError, ScorerError
from nann.kernels import NATIVE, NUMPY
from nann.search_input import UserBatch

BOTH = pytest.mark.parametrize("kernel", [NATIVE, NUMPY], ids=lambda kernel: kernel.name)


def textbook(graph, score, top_k, ef):
    """The original search, one item at a time, with a set of unexpanded candidates beside the results."""

    def order(item):
        return (-score[item], item)

    results = [graph.hnsw_entry_point]
    for layer in range(len(graph.layers) - 1, -1, -1):
        width = ef if layer == 0 else 1
        visited, candidates = set(results), set(results)
        while candidates:
            nearest = min(candidates, key=order)
            candidates.remove(nearest)
            if len(results) == width and order(nearest) > order(results[-1]):
                break
            new = {int(n) for n in graph.layers[layer].neighbors_of(nearest)} - visited
            visited |= new
            candidates |= new
            results = sorted({*results, *new}, key=order)[:width]
    return results[:top_k]


@BOTH
@settings(max_examples=150)
@given(case=walks(), ef=st.integers(1, 30), share=st.floats(0.01, 1))
def test_equals_the_textbook_for_every_user(kernel, case, ef, share):
    graph, scorer = case
    top_k = max(1, int(share * ef))
    result = best_first_search(graph, scorer, scorer.users(), top_k, ef, kernels=kernel)
    assert result.items.shape == (len(scorer.table), top_k)
    for row, score in enumerate(scorer.table):
        items = textbook(graph, score, top_k, ef)
        np.testing.assert_array_equal(result.items[row], items + [-1] * (top_k - len(items)))
    assert len(scorer.calls) == result.rounds.max()
    assert sum((call != -1).sum() for call in scorer.calls) == result.items_scored.sum()


@pytest.mark.parametrize(("dim", "M", "ef"), [(4, 4, 10), (8, 8, 40), (16, 32, 200)])
def test_equals_knn_query_of_hnswlib(dim, M, ef):
    hnswlib = pytest.importorskip("hnswlib")
    from support.hnswlib_graph import graph_of_index

    rng = np.random.default_rng(dim)
    # Multiples of 1/256: both sides' float32 sums are exact, whatever their order of summation.
    vectors = np.round(rng.normal(size=(3000, dim)) * 64).astype(np.float32) / 256
    queries = np.round(rng.normal(size=(100, dim)) * 64).astype(np.float32) / 256
    index = hnswlib.Index("l2", dim)
    index.init_index(3000, M=M, ef_construction=40, random_seed=1)
    labels = rng.permutation(3000)  # internal ids and labels differ
    index.add_items(vectors[labels], labels, num_threads=1)
    index.set_ef(ef)
    expected, distances = index.knn_query(queries, k=10)
    graph = graph_of_index(index, entry_layer=1)
    found = best_first_search(graph, L2Scorer(vectors), UserBatch(queries, None), 10, ef)
    np.testing.assert_array_equal(-found.scores, distances)
    distinct = np.array([len(set(row)) == 10 for row in distances])
    assert distinct.sum() > 80
    np.testing.assert_array_equal(found.items[distinct], expected[distinct])


def test_no_users():
    result = best_first_search(
        make_graph([[[]]], [0]), TableScorer([[1]]), UserBatch(np.empty((0, 1), np.float32), None), 2, 3
    )
    assert result.items.shape == (0, 2)


def test_ef_far_beyond_the_corpus_costs_no_memory():
    scorer = TableScorer([[1, 2]])
    result = best_first_search(make_graph([[[1], [0]]], [0, 0]), scorer, scorer.users(), 3, 10**12)
    np.testing.assert_array_equal(result.items, [[1, 0, -1]])


def test_ef_below_top_k_is_refused():
    with pytest.raises(RequestError, match="ef of the ground layer is 4 and top_k 5; expected ef >= top_k"):
        best_first_search(
            make_graph([[[]]], [0]), TableScorer([[1]]), UserBatch(np.zeros((1, 1), np.float32), None), 5, 4
        )


@pytest.mark.parametrize(("answer", "message"), BROKEN_ANSWERS)
def test_a_scorer_that_breaks_its_contract_is_named(answer, message):
    with pytest.raises(ScorerError, match=message):
        best_first_search(
            make_graph([[[], []]], [0, 0]), BrokenScorer(answer), UserBatch(np.zeros((2, 1), np.float32), None), 1, 1
        )


def test_blocked_items_are_refused():
    users = UserBatch(np.zeros((1, 1), np.float32), None, np.zeros((1, 1), np.uint64))
    with pytest.raises(RequestError, match="users have blocked items; expected none: this search has no conditions"):
        best_first_search(make_graph([[[]]], [0]), TableScorer([[0]]), users, 1, 1)
