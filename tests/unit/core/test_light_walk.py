"""The light walk against a plain best-first search, native against NumPy; and searches that start from its seeds."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.searching import (
    TableScorer,
    assert_row,
    best,
    knn_search,
    make_graph,
    random_graph,
    search_layer,
    some_params,
    walks,
)

from nann import _kernels, item_sets
from nann.beam_search import beam_search
from nann.conditions import Conditions
from nann.errors import RequestError, ScorerError
from nann.graph import HnswGraph, Layer
from nann.kernels import NATIVE, NUMPY
from nann.kernels_numpy import inner_products
from nann.light_walk import light_users, light_walk
from nann.search_input import SearchIndex, UserBatch
from nann.search_params import SearchParams, SeedParams

BOTH = pytest.mark.parametrize("kernel", [NATIVE, NUMPY], ids=lambda kernel: kernel.name)


def best_first_oracle(graph, score, ef):
    """W of best-first search on the ground layer, best first, and how many were scored; with sets and sorting."""
    visited = set(graph.entry_points.tolist())
    results, expanded = set(best(visited, score, ef)), set()
    while len(expanded) < min(4 * ef, graph.item_count) and results - expanded:
        item = best(results - expanded, score, 1)[0]
        expanded.add(item)
        new = set(graph.layers[0].neighbors_of(item).tolist()) - visited
        visited |= new
        results = set(best(results | new, score, ef))
    return best(results, score, ef), len(visited)


@st.composite
def light_walks(draw):
    """Graph, light vectors, user states, params: few distinct scores, or many; n often beyond what is reachable."""
    graph, scorer = draw(walks())
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    width, users = draw(st.sampled_from([1, 3, 16, 40])), len(scorer.table)
    shapes = ((graph.item_count, width), (users, width))
    if draw(st.booleans()):
        vectors, w = (rng.integers(-1, 2, shape).astype(np.float32) for shape in shapes)
    else:
        vectors, w = (rng.normal(size=shape).astype(np.float32) for shape in shapes)
    states = np.concatenate([scorer.states(), w], axis=1)
    return graph, scorer, vectors, states, [draw(seed_params()) for _ in range(users)]


@st.composite
def seed_params(draw):
    ef = draw(st.integers(1, 120))
    return SeedParams(draw(st.integers(1, ef)), ef)


@settings(max_examples=150)
@given(case=light_walks(), threads=st.integers(1, 3))
def test_native_equals_numpy_to_the_bit(case, threads):
    graph, _, light, states, params = case
    index = SearchIndex(graph, light)
    native = light_walk(index, states, params, None, threads=threads)
    numpy = light_walk(index, states, params, None, kernels=NUMPY)
    for name in ("items", "scores", "light_scored"):
        one, other = getattr(native, name), getattr(numpy, name)
        assert (one.dtype, one.shape, one.tobytes()) == (other.dtype, other.shape, other.tobytes())


@BOTH
@settings(max_examples=100)
@given(case=light_walks())
def test_equals_a_plain_best_first_search(kernel, case):
    graph, _, light, states, params = case
    found = light_walk(SearchIndex(graph, light), states, params, None, kernels=kernel)
    users = light_users(states, light.shape[1])
    for row, (user, one) in enumerate(zip(users, params, strict=True)):
        score = inner_products(user, light)
        items, scored = best_first_oracle(graph, score, min(one.ef, graph.item_count))
        assert_row(found, row, items[: one.count], score)
        assert found.light_scored[row] == scored


def test_inner_products_are_what_they_say():
    rng = np.random.default_rng(0)
    for width in (1, 15, 16, 17, 64, 100):
        user, vectors = rng.normal(size=width).astype(np.float32), rng.normal(size=(50, width)).astype(np.float32)
        expected = vectors.astype(np.float64) @ user.astype(np.float64)
        np.testing.assert_allclose(inner_products(user, vectors), expected, atol=1e-5)


def test_a_large_walk_is_the_same_with_any_number_of_threads():
    rng = np.random.default_rng(3)
    graph = random_graph(rng, 5000, 3, 20)
    light = rng.normal(size=(5000, 64)).astype(np.float32)
    states = rng.normal(size=(17, 70)).astype(np.float32)
    params = [SeedParams(300, 500)] * 17
    index = SearchIndex(graph, light)
    alone, shared = (light_walk(index, states, params, None, threads=threads) for threads in (1, 8))
    np.testing.assert_array_equal(alone.items, shared.items)
    np.testing.assert_array_equal(alone.scores, shared.scores)
    exact = np.argsort(-(states[:, -64:] @ light.T), axis=1)[:, :300]
    found = [np.isin(row, seeds).mean() for row, seeds in zip(exact, alone.items, strict=True)]
    assert np.mean(found) > 0.5  # a random graph guides badly, but ef 500 is a tenth of the items


def seeded_oracle(graph, score, seeds, params):
    """Algorithm 2 on the ground layer from seeds: all of them visited, the ef best of them W and frontier."""
    counted = [len(seeds)]
    results = set(best(seeds, score, params.ef[0]))
    if params.rounds[0]:
        # One round by hand, since the pseudocode starts a layer with visited = W.
        new = {int(n) for c in results for n in graph.layers[0].neighbors_of(c)} - set(seeds)
        visited = set(seeds) | new
        before, results = results, set(best(results | new, score, params.ef[0]))
        counted += [len(new)] if new else []
        frontier = results - before
        for _ in range(params.rounds[0] - 1):
            new = {int(n) for c in frontier for n in graph.layers[0].neighbors_of(c)} - visited
            visited |= new
            before, results = results, set(best(results | new, score, params.ef[0]))
            counted += [len(new)] if new else []
            frontier = results - before
    return best(results, score, params.top_k), counted


@st.composite
def mixed_entries(draw):
    graph, scorer, light, states, seeds = draw(light_walks())
    params = []
    for one in seeds:
        if draw(st.booleans()):
            ground = draw(some_params(1))
            params.append(SearchParams(ground.top_k, ground.ef, ground.rounds, one))
        else:
            params.append(draw(some_params(graph.entry_layer + 1)))
    length = draw(st.integers(0, 6))
    histories = st.lists(st.integers(-1, graph.item_count - 1), min_size=length, max_size=length)
    own = np.array([draw(histories) for _ in params], np.int32).reshape(len(params), length)
    return graph, scorer, light, states, params, draw(st.sampled_from([own, None]))


@BOTH
@settings(max_examples=200)
@given(case=mixed_entries())
def test_users_of_one_batch_may_enter_in_different_ways(kernel, case):
    graph, scorer, light, states, params, own = case
    index, users = SearchIndex(graph, light), UserBatch(states, own)
    result = beam_search(index, scorer, users, params, kernels=kernel)
    for row, (score, one) in enumerate(zip(scorer.table, params, strict=True)):
        if one.seeds is None:
            items, counted = knn_search(graph, score, one)
        else:
            seeds = light_walk(index, states[row : row + 1], [one.seeds], None).items[0]
            starts = {*seeds.tolist(), *(() if own is None else own[row].tolist())} - {-1}
            items, counted = seeded_oracle(graph, score, sorted(starts), one)
        assert_row(result, row, items, score)
        assert result.items_scored[row] == sum(counted)
        assert result.rounds[row] == len(counted)
    assert len(scorer.calls) == result.rounds.max()


def test_with_as_many_seeds_as_ef_it_is_algorithm_2():
    rng = np.random.default_rng(4)
    graph = random_graph(rng, 500, 2, 10)
    scorer = TableScorer(rng.normal(size=(3, 500)))
    light = rng.normal(size=(500, 8)).astype(np.float32)
    states = np.concatenate([scorer.states(), rng.normal(size=(3, 8)).astype(np.float32)], axis=1)
    params = SearchParams(10, (30,), (3,), SeedParams(30, 60))
    index, users = SearchIndex(graph, light), UserBatch(states, None)
    result = beam_search(index, scorer, users, params)
    seeds = light_walk(index, states, [params.seeds] * 3, None).items
    for row, score in enumerate(scorer.table):
        expected = best(search_layer(graph, score, seeds[row].tolist(), 30, 0, 3, []), score, 10)
        assert_row(result, row, expected, score)


class TestRefusals:
    graph = make_graph([[[1], [0]], [[], []]], [1, 0])
    index = SearchIndex(graph, np.ones((2, 3), np.float32))
    seeded = SearchParams(1, (1,), (1,), SeedParams(1, 1))

    def search(self, index, params):
        return beam_search(index, TableScorer([[1, 2]]), UserBatch(np.zeros((1, 3), np.float32), None), params)

    def test_a_bundle_without_a_light_score(self):
        with pytest.raises(RequestError, match="entry is 'seeds'; expected 'layers': this bundle's model has no light"):
            self.search(SearchIndex(self.graph, None), self.seeded)

    def test_states_that_are_too_narrow(self):
        with pytest.raises(RequestError, match=r"user_state has shape \[1, 2\]; expected \[B, 3 or more\]"):
            light_walk(self.index, np.zeros((1, 2), np.float32), [self.seeded.seeds], None)

    def test_states_that_are_no_numbers(self):
        with pytest.raises(ScorerError, match="light part of user_state holds NaN or infinity"):
            light_walk(self.index, np.full((1, 3), np.nan, np.float32), [self.seeded.seeds], None)

    def test_several_values_a_layer(self):
        with pytest.raises(RequestError, match="ef and rounds have 1 values; expected 2, one per layer from layer 1"):
            self.search(self.index, SearchParams(1, (1,), (1,)))


def arguments(**changed):
    """Valid arguments: two items on a line, one user."""
    values = {
        "indptr": np.array([0, 1, 2], np.int32),
        "neighbors": np.array([1, 0], np.int32),
        "entry_points": np.array([0], np.int32),
        "vectors": np.ones((2, 3), np.float32),
        "users": np.ones((1, 3), np.float32),
        "width": 2,
        "ef": np.array([2], np.int32),
        "steps": np.array([1], np.int32),
        "threads": 1,
    }
    return {**values, **changed}


@BOTH
@pytest.mark.parametrize(("changed", "error", "message"), [
    ({"entry_points": np.array([2], np.int32)}, IndexError, "entry_points holds 2; expected an item of 0 <= item < 2"),
    ({"neighbors": np.array([5, 0], np.int32)}, IndexError, "neighbors holds 5"),
    ({"indptr": np.array([0, 1], np.int32)}, ValueError,
     "indptr has 2 rows; expected 3, one per item and one more"),
    ({"users": np.ones((1, 2), np.float32)}, ValueError, "users has 2 columns; expected 3, as vectors"),
    ({"ef": np.array([0], np.int32)}, ValueError, "ef holds 0; expected at least 1"),
    ({"ef": np.array([1, 1], np.int32)}, ValueError, "ef has 2 rows; expected 1, one per user"),
    ({"users": np.full((1, 3), np.nan, np.float32)}, ValueError, "the score of item 0 is NaN"),
    ({"vectors": np.ones((2, 3))}, TypeError, "vectors is float64; expected float32"),
    ({"threads": 0}, ValueError, "threads is 0; expected at least 1"),
])  # fmt: skip
def test_arrays_that_do_not_fit(kernel, changed, error, message):
    kernel.light_walk(**arguments())
    with pytest.raises(error, match=message):
        kernel.light_walk(**arguments(**changed))


@pytest.mark.parametrize(("changed", "message"), [
    ({"users": np.ones((1, 2), np.float32)}, "users has 2 columns; expected 3, as vectors"),
    ({"indptr": np.array([0, 1], np.int32)}, "the layer has 1 items; expected 2"),
    ({"ef": np.array([1, 1], np.int32)}, "ef has 2 rows; expected 1, one per user"),
    ({"steps": np.array([1, 1], np.int32)}, "steps has 2 rows; expected 1, one per user"),
    ({"indptr": np.empty(0, np.int32)}, "indptr is empty"),
])  # fmt: skip
def test_the_native_function_alone_stays_within_its_arrays(changed, message):
    with pytest.raises(ValueError, match=message):
        _kernels.light_walk(blocked=None, **arguments(**changed))


def test_a_long_walk_under_conditions_of_a_large_corpus(monkeypatch):
    """ef N is more than an int32 holds."""
    monkeypatch.setattr("nann.light_walk._SCANNED_PER_STEP", 0)
    count, ef = 200_000, 12_000
    links = Layer(np.arange(count + 1, dtype=np.int32), np.maximum(np.arange(count, dtype=np.int32) - 1, 0))
    top = Layer(np.zeros(count + 1, np.int32), np.zeros(0, np.int32))
    graph = HnswGraph((links, top), np.r_[np.zeros(count - 1, np.uint8), np.uint8(1)], 1, count - 1)
    light = np.linspace(0, 1, count, dtype=np.float32)[:, None]  # each item leads to the next worse
    blocked = item_sets.of_items(np.array([count - 2], np.int32), count)[None]
    users = UserBatch(np.ones((1, 1), np.float32), None, blocked)
    conditions = Conditions.of(users, count, NATIVE)
    found = light_walk(SearchIndex(graph, light), users.states, [SeedParams(100, ef)], conditions)
    assert found.items[0].tolist() == [count - 1, *range(count - 3, count - 102, -1)]
    assert found.light_scored[0] < 2 * ef, "a walk, no scan"
