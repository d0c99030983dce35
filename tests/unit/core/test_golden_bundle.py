"""The committed bundle of format version 1 opens, and gives the same answers as when it was made."""

import numpy as np
import pytest
from support import golden
from support.reference import OfflineEnsemble

from nann.bundle import Bundle


@pytest.fixture(scope="module")
def bundle():
    return Bundle.open(golden.BUNDLE)


def test_it_opens_with_all_of_its_parts(bundle):
    assert bundle.bundle_id == "a0ef9df5b41fc71e"
    assert (bundle.item_count, bundle.sequence_length, bundle.profile_width) == (60, 6, 1)
    assert [len(layer.indptr) - 1 for layer in bundle.graph.layers] == [60, 60, 60]
    assert bundle.graph.entry_layer == 1
    assert bundle.item_vectors.shape == bundle.light_vectors.shape == (60, 8)
    assert bundle.item_names is None
    assert bundle.shape_grid.widths == (64,)
    assert bundle.notes["metrics"]["test"]["users"] == 20
    assert set(bundle.search_by_entry) == {"layers", "seeds"}


def test_it_gives_the_recorded_answers(bundle):
    offline = OfflineEnsemble(bundle)
    for asked in golden.answers():
        params = bundle.search_by_entry[asked["entry"]]
        items, scores, scored = offline.retrieve(asked["behavior_item_ids"] or [0], params, asked["user_profile"])
        assert items.tolist() == asked["item_ids"]
        np.testing.assert_allclose(scores, asked["scores"], atol=golden.TOLERANCE)
        assert scored == asked["items_scored"]
