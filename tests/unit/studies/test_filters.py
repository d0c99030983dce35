"""The study of filters: drawn filters, exact filtered lists, and what databases are asked for."""

from __future__ import annotations

import numpy as np
import pytest
from support.searching import L2Scorer, random_graph

from nann.exact_search import exact_search
from nann.search_input import SearchIndex, UserBatch
from nann.search_params import SearchParams, SeedParams
from nann.training.studies.measures import vector_databases
from nann.training.studies.measures.filtered import (
    AND,
    NEGATIVE,
    OPPOSED,
    POSITIVE,
    UNCORRELATED,
    DrawnFilter,
    FilteredSearch,
    blocked,
    drawn_filters,
)
from nann.training.studies.measures.vector_databases import DATABASES, Asked, found_by

ITEMS, USERS = 2000, 6


@pytest.fixture(scope="module")
def search():
    rng = np.random.default_rng(5)
    vectors = rng.normal(size=(ITEMS, 4)).astype(np.float32)
    graph = random_graph(rng, ITEMS, 2, 12)
    users = UserBatch(rng.normal(size=(USERS, 4)).astype(np.float32), None)
    params = SearchParams(20, (40,), (2,), SeedParams(20, 40))
    return FilteredSearch.of(SearchIndex(graph, vectors), L2Scorer(vectors), users, params)


@pytest.mark.parametrize("share", [0.5, 0.04, 0.0001])
@pytest.mark.parametrize("kind", [UNCORRELATED, POSITIVE, NEGATIVE])
def test_a_filter_has_its_share_and_its_correlation(search, kind, share):
    drawn = [DrawnFilter(kind, share).matching(places) for places in search.places]
    assert [each.sum() for each in drawn] == [max(round(share * ITEMS), 1)] * USERS
    liked = np.mean([places[each].mean() for places, each in zip(search.places, drawn, strict=True)])
    if share == 0.04:
        low, high = {UNCORRELATED: (0.4, 0.6), POSITIVE: (0, 0.35), NEGATIVE: (0.6, 1)}[kind]
        assert low < liked < high


def test_two_filters_are_joined(search):
    places = search.places[0]
    assert DrawnFilter(AND, 0.2).matching(places).mean() == pytest.approx(0.04, abs=0.015)
    opposed = DrawnFilter(OPPOSED, 0.2).matching(places)
    assert 0 < opposed.sum() < 0.04 * ITEMS * 1.2
    assert [each.kind for each in drawn_filters([0.5])] == [UNCORRELATED, POSITIVE, NEGATIVE, AND, OPPOSED]


@pytest.mark.parametrize("share", [0.3, 0.002])
def test_the_exact_list_is_that_of_exhaustive_filtered_scoring(search, share):
    sets = [DrawnFilter(POSITIVE, share).matching(places) for places in search.places]
    users = UserBatch(search.users.states, None, np.stack([blocked(each) for each in sets]))
    expected = exact_search(search.scorer, users, ITEMS, search.params.top_k).items
    found = np.concatenate([search.exact(row, each) for row, each in enumerate(sets)])
    np.testing.assert_array_equal(found, expected)


def test_a_search_under_a_filter_is_measured(search):
    few, scored = search.measure(DrawnFilter(UNCORRELATED, 0.01).matching, 1)
    assert few["coverage"] == few["all_scored"] == 1
    assert scored.tolist() == [20] * USERS
    assert few["evaluations_ratio"] == pytest.approx(20 / search.unfiltered["evaluations"])
    two = search.taken(2)
    assert len(two.users) == len(two.scores) == len(two.plain) == 2


@pytest.mark.parametrize("name", DATABASES)
def test_a_database_finds_the_best_that_match(search, name, tmp_path):
    module, _ = DATABASES[name]
    if name not in vector_databases.installed():
        pytest.skip(f"no vector database: {module} is not installed")
    vectors = search.index.light_vectors
    sets = [np.stack([DrawnFilter(POSITIVE, 0.1).matching(places) for places in search.places])]
    sets.append(DrawnFilter(UNCORRELATED, 0.3).matching(search.places[0])[None])
    asked = Asked(search.users.states, sets, np.full((2, USERS), 30))
    for each, (items, ms) in zip(sets, found_by(name, vectors, asked, tmp_path / "items"), strict=True):
        assert ms > 0
        for user, row in enumerate(items):
            matching = np.flatnonzero(each[user % len(each)])
            best = matching[np.argsort(-(vectors[matching] @ search.users.states[user]))][:30]
            assert np.isin(row, matching).all()
            assert np.isin(best, row).mean() > 0.9
