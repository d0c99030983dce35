"""Items that no search can reach."""

from __future__ import annotations

import numpy as np
import pytest
from support.searching import make_graph

from nann.errors import BundleError
from nann.reachability import Reachability, reachable_items


@pytest.fixture
def graph():
    """Items on a line, 0-1-2-3-4 x 5 6-7: no item links to 5, and only 5 leads to 6 and 7."""
    links = [[v for v in (u - 1, u + 1) if 0 <= v < 8 and v != 5] for u in range(8)]
    return make_graph([links, [[]] * 8], [1, 0, 0, 0, 0, 0, 0, 0])


def test_unreachable_items_are_found(graph):
    missed = Reachability.of(graph)
    np.testing.assert_array_equal(reachable_items(graph), [True] * 5 + [False] * 3)
    np.testing.assert_array_equal(missed.unreachable, [5, 6, 7])
    np.testing.assert_array_equal(missed.no_in_links, [5])


def test_what_a_bundle_may_leave_unreachable(graph, caplog):
    with pytest.raises(
        BundleError, match=r"no search can reach 3 of the 8 items \(37.50%\); expected at most 5%: index"
    ):
        Reachability.require(graph)
    line = [[v for v in (u - 1, u + 1) if 0 <= v < 49] for u in range(50)]
    last_missed = make_graph([line, [[]] * 50], [1, *[0] * 49])
    assert Reachability.require(last_missed).summary() == {"unreachable_items": 1, "items_without_in_links": 1}
    said = "no search can reach 1 of the 50 items (2.00%): index again with a larger m"
    Reachability.require(last_missed, warn=False)
    assert caplog.text.count(said) == 1
