"""Items that no search can reach are linked."""

from __future__ import annotations

import numpy as np
import pytest
from support.searching import TableScorer, make_graph

from nann.reachability import Reachability, reachable_items
from nann.search_input import SearchIndex
from nann.search_params import SearchParams
from nann.training.search.measured_users import search_users
from nann.training.search.repair import link_orphans


@pytest.fixture
def graph():
    """Items on a line, 0-1-2-3-4 x 5 6-7: no item links to 5, and only 5 leads to 6 and 7."""
    links = [[v for v in (u - 1, u + 1) if 0 <= v < 8 and v != 5] for u in range(8)]
    return make_graph([links, [[]] * 8], [1, 0, 0, 0, 0, 0, 0, 0])


def test_repair_makes_unreachable_items_reachable(graph):
    vectors = np.arange(8, dtype=np.float32)[:, None]
    repaired = link_orphans(graph, vectors, Reachability.of(graph).orphans, links=2)
    assert reachable_items(repaired).all()
    assert Reachability.of(repaired).orphans.size == 0
    # The nearest reachable items get the new links, after their old ones.
    np.testing.assert_array_equal(repaired.layers[0].neighbors_of(4), [3, 5, 6, 7])
    np.testing.assert_array_equal(repaired.layers[0].neighbors_of(3), [2, 4, 5, 6, 7])
    np.testing.assert_array_equal(repaired.layers[0].neighbors_of(2), [1, 3])
    np.testing.assert_array_equal(graph.layers[0].neighbors_of(4), [3])
    assert link_orphans(repaired, vectors, np.empty(0, np.int64)) is repaired
    # A walk now finds item 7.
    scorer = TableScorer([-abs(np.arange(8) - 7)])  # the nearer to item 7 the better
    params = SearchParams(1, (1, 8), (1, 8))
    assert search_users(SearchIndex(graph, None), scorer, scorer.users(), params).items[0, 0] == 4
    assert search_users(SearchIndex(repaired, None), scorer, scorer.users(), params).items[0, 0] == 7
