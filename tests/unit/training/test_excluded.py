"""Items that the data set excludes are in no list, whatever makes it, and others take their places."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.searching import TableScorer, make_graph

from nann.search_input import SearchIndex, UserBatch
from nann.search_params import SearchParams, SeedParams
from nann.training.data.prepared import Queries
from nann.training.excluded import Excluded
from nann.training.search.ground_rounds import search_by_ground_round
from nann.training.search.measured_users import MeasuredUsers

ITEMS, USERS = 24, 3


def as_csr(sets):
    return np.cumsum([0, *map(len, sets)]), np.array([item for one in sets for item in sorted(one)], np.int32)


@given(
    st.lists(
        st.tuples(st.lists(st.integers(0, 30), unique=True, max_size=12), st.sets(st.integers(0, 30))), min_size=1
    ),
    st.integers(1, 14),
    st.sampled_from([np.int32, np.int64]),
)
def test_the_first_items_that_are_not_excluded(rows, top_k, dtype):
    items = np.full((len(rows), 12), -1, dtype)
    for row, (listed, _) in zip(items, rows, strict=True):
        row[: len(listed)] = listed
    found = Excluded(*as_csr([gone for _, gone in rows])).without(items, top_k)
    assert (found.dtype, found.shape) == (dtype, (len(rows), min(top_k, 12)))
    for row, (listed, gone) in zip(found, rows, strict=True):
        kept = [item for item in listed if item not in gone][:top_k]
        np.testing.assert_array_equal(row, kept + [-1] * (found.shape[1] - len(kept)))


def test_some_of_the_users():
    excluded = Excluded(*as_csr([{3}, set(), {1, 2, 7}, {5}]))
    assert (len(excluded), excluded.most, excluded.most_extra(10), Excluded.none(2).most) == (4, 3, 3, 0)
    middle = excluded[1:3]
    np.testing.assert_array_equal(middle.indptr, [0, 0, 3])
    np.testing.assert_array_equal(middle.items, [1, 2, 7])
    assert len(excluded[3:9]) == 1


def test_a_search_asks_for_as_many_more_as_are_excluded():
    excluded = Excluded(*as_csr([set(), {1, 2}, set(range(20))]))
    layers = SearchParams(2, (1, 3), (1, 3))
    assert [(one.top_k, one.ef) for one in excluded.widened(layers)] == [(2, (1, 3)), (4, (1, 4)), (10, (1, 10))]
    seeds = SearchParams(2, (9,), (3,), SeedParams(4, 4))
    assert [(one.top_k, one.ef) for one in excluded.widened(seeds)] == [(2, (9,)), (4, (9,)), (10, (10,))]
    assert excluded.most_extra(2) == 8


@pytest.fixture(scope="module")
def searched():
    """A line of items, three users with scores at random, and what two of them must not get."""
    rng = np.random.default_rng(4)
    scorer = TableScorer(rng.normal(size=(USERS, ITEMS)))
    links = [
        [other for other in (item - 2, item - 1, item + 1, item + 2) if 0 <= other < ITEMS] for item in range(ITEMS)
    ]
    graph = make_graph([links, [[]] * ITEMS], [1] + [0] * (ITEMS - 1))
    best = np.argsort(-scorer.table, axis=1)
    excluded = as_csr([set(), set(best[1, :3].tolist()), set(best[2, 1:9:2].tolist())])
    nothing = np.zeros((USERS, 1), np.int32)
    queries = Queries(
        nothing, nothing.astype(np.int64), nothing, np.arange(USERS + 1), best[:, 0].astype(np.int32),
        np.arange(USERS, dtype=np.int32), *excluded,
    )  # fmt: skip
    users = MeasuredUsers.of(scorer, UserBatch(scorer.states(), None), queries, ITEMS, 4)
    return SearchIndex(graph, None), scorer, users, best


def test_the_exact_list_has_the_best_of_the_others(searched):
    _, _, users, best = searched
    for query, row in enumerate(users.exact):
        left_out = users.queries.excluded_items[slice(*users.queries.excluded_indptr[query : query + 2])]
        np.testing.assert_array_equal(row, [item for item in best[query] if item not in left_out][:4])


def test_a_search_of_the_whole_graph_finds_the_exact_list(searched):
    index, scorer, users, _ = searched
    found = users.search(index, scorer, SearchParams(4, (1, ITEMS), (1, ITEMS)))
    np.testing.assert_array_equal(found.items, users.exact)
    scores = np.take_along_axis(scorer.table, users.exact, 1)
    np.testing.assert_array_equal(found.scores, scores)
    assert (found.items_scored == ITEMS).all()
    assert users.measure(index, scorer, SearchParams(4, (1, ITEMS), (1, ITEMS)))["coverage"] == 1


@pytest.mark.parametrize("ef", [4, 6, 15])
def test_each_number_of_rounds_leaves_them_out(searched, ef):
    index, scorer, users, _ = searched
    found = search_by_ground_round(index, scorer, users, SearchParams(4, (1, ef), (1, 6)))
    for place, (items, items_scored) in enumerate(zip(found.items, found.items_scored, strict=True)):
        one = users.search(index, scorer, SearchParams(4, (1, ef), (1, place + 1)))
        np.testing.assert_array_equal(items, one.items)
        np.testing.assert_array_equal(items_scored, one.items_scored)
