"""What counts as a deleted item that was returned."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from nann.perf.load.changing import Deletions
from nann.python_backend.server.control import ModelControl


def test_only_an_item_whose_deletion_was_acknowledged_before_the_search_counts():
    deletions = Deletions(ModelControl("localhost:1", None), acknowledged_ns={7: 100, 9: 300})
    answer = SimpleNamespace(item_ids=np.array([[7, 9, -1], [1, 7, 2]]))
    deletions.look([[1], [2]], 100, answer)
    assert (deletions.searches, deletions.returned) == (2, 0)
    deletions.look([[1], [2]], 101, answer)
    assert (deletions.searches, deletions.returned) == (4, 2)
    deletions.look([[1], [2]], 301, answer)
    assert (deletions.searches, deletions.returned) == (6, 5)
