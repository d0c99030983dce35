"""Beam-retrieval against a transcription of the paper's pseudocode, one user at a time."""

from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.searching import (
    BROKEN_ANSWERS,
    BrokenScorer,
    L2Scorer,
    TableScorer,
    assert_row,
    knn_search,
    make_graph,
    random_graph,
    some_params,
    walks,
)

from nann.beam_search import beam_search
from nann.errors import RequestError, ScorerError
from nann.exact_search import exact_search
from nann.kernels import NATIVE, NUMPY, Kernels
from nann.search_input import SearchIndex, UserBatch
from nann.search_params import SearchParams
from nann.signature import PADDING_SCORE

BOTH = pytest.mark.parametrize("kernel", [NATIVE, NUMPY], ids=lambda kernel: kernel.name)


@st.composite
def mixed_searches(draw):
    graph, scorer = draw(walks())
    return graph, scorer, [draw(some_params(graph.entry_layer + 1)) for _ in scorer.table]


@BOTH
@settings(max_examples=250)
@given(case=mixed_searches())
def test_equals_the_pseudocode_for_every_user_of_a_mixed_batch(kernel, case):
    graph, scorer, params = case
    result = beam_search(SearchIndex(graph, None), scorer, scorer.users(), params, kernels=kernel)
    assert result.items.shape == result.scores.shape == (len(params), max(one.top_k for one in params))
    assert result.items.dtype == np.int32
    assert result.scores.dtype == np.float32
    for row, (score, one) in enumerate(zip(scorer.table, params, strict=True)):
        items, counted = knn_search(graph, score, one)
        assert_row(result, row, items, score)
        assert result.items_scored[row] == sum(counted)
        assert result.rounds[row] == len(counted)
    assert len(scorer.calls) == result.rounds.max()


@settings(max_examples=60)
@given(case=mixed_searches())
def test_a_batch_equals_each_user_alone(case):
    graph, scorer, params = case
    together = beam_search(SearchIndex(graph, None), scorer, scorer.users(), params)
    for row, one in enumerate(params):
        alone = beam_search(SearchIndex(graph, None), scorer, scorer.users([row]), one)
        np.testing.assert_array_equal(together.items[row, : one.top_k], alone.items[0])
        np.testing.assert_array_equal(together.scores[row, : one.top_k], alone.scores[0])
        assert (together.items[row, one.top_k :] == -1).all()
        assert together.items_scored[row] == alone.items_scored[0]
        assert together.rounds[row] == alone.rounds[0]


@settings(max_examples=30)
@given(case=mixed_searches())
def test_threads_share_the_users_of_a_batch_and_find_the_same(case):
    graph, scorer, params = case
    alone = beam_search(SearchIndex(graph, None), scorer, scorer.users(), params)
    asked = []

    class Native:
        mark = staticmethod(NATIVE.implementation.mark)

        def expand(self, indptr, neighbors, visited, frontier, threads):
            asked.append((frontier.size, threads))
            return NATIVE.implementation.expand(indptr, neighbors, visited, frontier, threads)

        def merge_top(self, items, scores, new_items, new_scores, ef, threads):
            asked.append((new_items.size, threads))
            return NATIVE.implementation.merge_top(items, scores, new_items, new_scores, ef, threads)

    everything_is_worth_it = mock.patch.multiple("nann.lockstep", _EXPANDED_PER_THREAD=1, _MERGED_PER_THREAD=1)
    with mock.patch("nann.threads.core_count", return_value=3), everything_is_worth_it:
        shared = beam_search(
            SearchIndex(graph, None), scorer, scorer.users(), params, kernels=Kernels("recording", Native())
        )
    assert asked
    assert all(threads == min(size, 3) for size, threads in asked)
    np.testing.assert_array_equal(shared.items, alone.items)
    np.testing.assert_array_equal(shared.scores, alone.scores)


def stopped_alone(graph, table, row, params, most_calls):
    """The same search of one user alone, and the items that it scored."""
    scorer = TableScorer(table)
    stop = lambda: np.array([len(scorer.calls) >= most_calls])  # noqa: E731
    result = beam_search(SearchIndex(graph, None), scorer, scorer.users([row]), params, stop=stop)
    return result, np.concatenate([np.zeros(0, np.int32), *(call.ravel() for call in scorer.calls)])


@settings(max_examples=60)
@given(case=mixed_searches(), data=st.data())
def test_a_stopped_search_keeps_its_results_and_the_others_go_on(case, data):
    graph, scorer, params = case
    whole = beam_search(SearchIndex(graph, None), scorer, scorer.users(), params)
    most_calls = np.array([data.draw(st.integers(0, 6)) for _ in params])
    calls = len(scorer.calls)
    stopped = beam_search(
        SearchIndex(graph, None), scorer, scorer.users(), params, stop=lambda: most_calls <= len(scorer.calls) - calls
    )
    np.testing.assert_array_equal(stopped.finished, whole.rounds <= most_calls)
    np.testing.assert_array_equal(stopped.rounds, np.minimum(whole.rounds, most_calls))
    for row, (score, one) in enumerate(zip(scorer.table, params, strict=True)):
        if stopped.finished[row]:
            np.testing.assert_array_equal(stopped.items[row], whole.items[row])
        alone, scored = stopped_alone(graph, scorer.table, row, one, most_calls[row])
        assert_row(stopped, row, alone.items[0][alone.items[0] != -1], score)
        assert stopped.items_scored[row] == len(scored)
        assert stopped.scores[row, 0] == score[scored].max(initial=PADDING_SCORE)  # the best of all items scored so far


def test_one_user_who_finishes_early_is_dropped_from_the_calls():
    chain = [[1], [2], [3], [4], []]
    graph = make_graph([chain, [[], [], [], [], []]], [1, 0, 0, 0, 0])
    scorer = TableScorer(np.arange(10).reshape(2, 5))
    short, long = SearchParams(1, (1, 5), (1, 1)), SearchParams(5, (1, 5), (1, 4))
    result = beam_search(SearchIndex(graph, None), scorer, scorer.users(), [short, long])
    assert [len(call) for call in scorer.calls] == [2, 2, 1, 1, 1]
    np.testing.assert_array_equal(result.rounds, [2, 5])
    np.testing.assert_array_equal(result.items, [[1, -1, -1, -1, -1], [4, 3, 2, 1, 0]])


def test_users_on_different_layers_share_a_call():
    ground = [[], [3], [4], [], []]
    middle = [[1], [2], [], [], []]
    graph = make_graph([ground, middle, [[]] * 5], [2, 1, 1, 0, 0])
    scorer = TableScorer([[0, 1, 2, 3, 4]] * 2)
    quick, thorough = SearchParams(1, (1, 1, 9), (0, 1, 1)), SearchParams(1, (1, 9, 9), (0, 2, 1))
    result = beam_search(SearchIndex(graph, None), scorer, scorer.users(), [quick, thorough])
    # In the third call user 0 is on the ground and user 1 still on layer 1.
    assert [call.tolist() for call in scorer.calls] == [[[0], [0]], [[1], [1]], [[3], [2]], [[4, 3]]]
    np.testing.assert_array_equal(result.items, [[3], [4]])


def test_layers_without_rounds_pass_w_on_as_it_came():
    graph = make_graph([[[1], [0]], [[], []]], [1, 1])
    scorer = TableScorer([[1, 2]])
    result = beam_search(SearchIndex(graph, None), scorer, scorer.users(), SearchParams(1, (2, 1), (0, 0)))
    np.testing.assert_array_equal(result.items, [[1]])
    assert len(scorer.calls) == 1


def test_a_round_that_finds_nothing_still_cuts_w_to_ef():
    # Layer 1 has no links: its only round leaves the best one of W, so item 1's neighbour 2 is never reached.
    graph = make_graph([[[], [2], []], [[]] * 3, [[]] * 3], [2, 2, 0])
    scorer = TableScorer([[2, 1, 9]])
    result = beam_search(SearchIndex(graph, None), scorer, scorer.users(), SearchParams(3, (2, 1, 3), (1, 1, 1)))
    np.testing.assert_array_equal(result.items, [[0, -1, -1]])


def test_no_users():
    graph = make_graph([[[]]], [0])
    result = beam_search(
        SearchIndex(graph, None),
        TableScorer(np.empty((0, 1))),
        UserBatch(np.empty((0, 3), np.float32), None),
        SearchParams(4, (4,), (1,)),
    )
    assert result.items_scored.shape == (0,)
    assert result.items.shape == (0, 4)


def test_ef_far_beyond_the_corpus_costs_no_memory():
    graph = make_graph([[[1], [0]], [[], []]], [1, 0])
    scorer = TableScorer([[1, 2]])
    result = beam_search(
        SearchIndex(graph, None), scorer, scorer.users(), SearchParams(3, (10**12, 10**12), (1, 10**12))
    )
    np.testing.assert_array_equal(result.items, [[1, 0, -1]])


def test_observer_sees_w_after_every_call():
    graph = make_graph([[[1], [2], []], [[]] * 3], [1, 0, 0])
    scorer = TableScorer([[0, 1, 2], [0, -1, -2]])
    traces = []
    params = SearchParams(1, (1, 2), (1, 3))
    beam_search(SearchIndex(graph, None), scorer, scorer.users(), params, observer=traces.append)
    assert [trace.rows.tolist() for trace in traces] == [[0, 1], [0, 1], [0, 1]]
    assert [trace.layers.tolist() for trace in traces] == [[1, 1], [0, 0], [0, 0]]
    assert [trace.rounds.tolist() for trace in traces] == [[0, 0], [1, 1], [2, 2]]
    assert [trace.items.tolist() for trace in traces] == [[[0, -1]] * 2, [[1, 0], [0, 1]], [[2, 1], [0, 1]]]


def test_equals_the_pseudocode_at_the_paper_s_parameters():
    rng = np.random.default_rng(5)
    graph = random_graph(rng, 4000, 3, 24)
    scorer = TableScorer(rng.normal(size=(8, 4000)))
    params = SearchParams(top_k=200, ef=(100, 200, 400), rounds=(1, 1, 3))  # section 4
    result = beam_search(SearchIndex(graph, None), scorer, scorer.users(), params)
    for row, score in enumerate(scorer.table):
        assert_row(result, row, knn_search(graph, score, params)[0], score)


@pytest.fixture(scope="module")
def l2_world():
    hnswlib = pytest.importorskip("hnswlib")
    from support.hnswlib_graph import graph_of_index

    rng = np.random.default_rng(7)
    vectors = rng.normal(size=(5000, 16)).astype(np.float32)
    index = hnswlib.Index("l2", 16)
    index.init_index(5000, M=16, ef_construction=100, random_seed=3)
    index.add_items(vectors, num_threads=1)
    return graph_of_index(index, entry_layer=2), vectors, rng.normal(size=(50, 16)).astype(np.float32)


def test_generous_ef_finds_the_exact_nearest_neighbours(l2_world):
    graph, vectors, queries = l2_world
    scorer = L2Scorer(vectors)
    users = UserBatch(queries, None)
    found = beam_search(SearchIndex(graph, None), scorer, users, SearchParams(20, (20, 100, 400), (1, 2, 4)))
    exact = exact_search(scorer, users, len(vectors), 20)
    recall = np.mean([np.isin(a, b).mean() for a, b in zip(found.items, exact.items, strict=True)])
    assert recall >= 0.99
    assert found.items_scored.max() < len(vectors)


@pytest.mark.parametrize(("params", "message"), [
    (SearchParams(1, (4, 4), (1, 1)), "ef and rounds have 2 values; expected 3, one per layer from layer 2 down"),
    ([SearchParams(1, (4, 4, 4), (1, 1, 1))], "got 1 search parameters for 2 users; expected one, or one per user"),
])  # fmt: skip
def test_params_that_do_not_fit_are_refused(params, message):
    graph = make_graph([[[]], [[]], [[]]], [2])
    with pytest.raises(RequestError, match=message):
        beam_search(SearchIndex(graph, None), TableScorer([[1]]), UserBatch(np.zeros((2, 1), np.float32), None), params)


@pytest.mark.parametrize(("answer", "message"), BROKEN_ANSWERS)
def test_a_scorer_that_breaks_its_contract_is_named(answer, message):
    graph = make_graph([[[], []]], [0, 0])
    with pytest.raises(ScorerError, match=message):
        beam_search(
            SearchIndex(graph, None),
            BrokenScorer(answer),
            UserBatch(np.zeros((2, 1), np.float32), None),
            SearchParams(1, (1,), (1,)),
        )
