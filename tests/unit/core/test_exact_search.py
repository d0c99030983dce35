"""Exhaustive search against a full sort."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.searching import BROKEN_ANSWERS, BrokenScorer, TableScorer

from nann.errors import RequestError, ScorerError
from nann.exact_search import exact_search
from nann.search_input import UserBatch
from nann.signature import PADDING_SCORE


@settings(max_examples=150)
@given(
    seed=st.integers(0, 2**32 - 1),
    users=st.integers(1, 7),
    item_count=st.integers(1, 60),
    chunk=st.integers(1, 70),
    user_block=st.integers(1, 8),
    data=st.data(),
)
def test_equals_a_full_sort(seed, users, item_count, chunk, user_block, data):
    rng = np.random.default_rng(seed)
    top_k = data.draw(st.integers(1, item_count))
    scorer = TableScorer(rng.integers(0, 8, (users, item_count)))  # many ties
    result = exact_search(scorer, scorer.users(), item_count, top_k, chunk=chunk, user_block=user_block)
    order = np.argsort(-scorer.table, axis=1, kind="stable")[:, :top_k]
    np.testing.assert_array_equal(result.items, order)
    np.testing.assert_array_equal(result.scores, np.take_along_axis(scorer.table, order, axis=1))
    assert (result.items_scored == item_count).all()
    assert (result.rounds == -(-item_count // chunk)).all()
    assert max(call.shape[0] for call in scorer.calls) <= user_block
    assert max(call.shape[1] for call in scorer.calls) <= chunk


def test_reports_progress_up_to_the_total():
    scorer = TableScorer(np.zeros((3, 5)))
    seen = []
    exact_search(scorer, scorer.users(), 5, 1, chunk=3, user_block=2, progress=lambda *step: seen.append(step))
    assert seen == [(6, 15), (10, 15), (13, 15), (15, 15)]


def test_infinite_scores_are_given_as_the_largest_finite_ones():
    """A scorer may mask items with -inf; JSON, for one, can't carry it."""
    scorer = TableScorer([[1, -np.inf, np.inf, 0]])
    result = exact_search(scorer, scorer.users(), 4, 4)
    assert result.items.tolist() == [[2, 0, 3, 1]]
    assert result.scores.tolist() == [[-PADDING_SCORE, 1, 0, PADDING_SCORE]]


def test_no_users():
    assert exact_search(TableScorer([[1]]), UserBatch(np.empty((0, 1), np.float32), None), 4, 2).items.shape == (0, 2)


@pytest.mark.parametrize("top_k", [0, 5, 2.7])
def test_a_top_k_out_of_range_is_refused(top_k):
    with pytest.raises(
        RequestError, match=f"top_k is {top_k}; expected a whole number from 1 to 4, the number of items"
    ):
        exact_search(TableScorer([[1] * 4]), UserBatch(np.zeros((1, 1), np.float32), None), 4, top_k)


def test_a_chunk_of_nothing_is_refused():
    with pytest.raises(RequestError, match="chunk is 0 and user_block 32; expected at least 1"):
        exact_search(TableScorer([[1] * 4]), UserBatch(np.zeros((1, 1), np.float32), None), 4, 2, chunk=0)


@pytest.mark.parametrize(("answer", "message"), BROKEN_ANSWERS)
def test_a_scorer_that_breaks_its_contract_is_named(answer, message):
    with pytest.raises(ScorerError, match=message):
        exact_search(BrokenScorer(answer), UserBatch(np.zeros((2, 1), np.float32), None), 4, 2)
