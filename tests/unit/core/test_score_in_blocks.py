from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nann.errors import ScorerError
from nann.scorer import Float32Array, Int32Array, pair_blocks, score_in_blocks


def sums(user_states: Float32Array, candidates: Int32Array) -> Float32Array:
    return user_states[:, :1] + candidates.astype(np.float32)


@pytest.mark.parametrize(("users", "candidates"), [(1, 1), (1, 10), (1, 11), (3, 3), (3, 4), (2, 25), (16, 1), (0, 5)])
def test_blocks_cover_every_pair_once_and_none_is_large(users: int, candidates: int) -> None:
    seen = np.zeros((users, candidates), int)
    for rows, columns in pair_blocks(users, candidates, 10):
        seen[rows, columns] += 1
        assert 0 < seen[rows, columns].size <= 10 or users == 0
    assert (seen == 1).all()


@given(st.lists(st.integers(0, 30), min_size=1, max_size=6), st.integers(1, 40))
def test_scores_are_those_of_one_call_and_padding_is_left_out(counts: list[int], pairs: int) -> None:
    states = np.arange(len(counts), dtype=np.float32)[:, None]
    candidates = np.tile(np.arange(30, dtype=np.int32), (len(counts), 1))
    used = np.arange(30) < np.array(counts)[:, None]
    candidates[~used] = -1

    def score(user_states: Float32Array, block: Int32Array) -> Float32Array:
        assert block.size <= pairs
        assert (block[:, -1] != -1).any(), "a column of padding was scored"
        return sums(user_states, block)

    scores = score_in_blocks(score, states, candidates, pairs)
    np.testing.assert_array_equal(scores[used], sums(states, candidates)[used])


@pytest.mark.parametrize("shape", [(2, 1), (1, 4), (2, 5), (2,), (2, 4, 1), ()])
def test_scores_of_another_shape_are_an_error(shape: tuple[int, ...]) -> None:
    candidates = np.zeros((2, 4), np.int32)
    with pytest.raises(ScorerError, match=r"the scorer returned shape .*; expected \[2, 4\]"):
        score_in_blocks(lambda *_: np.zeros(shape, np.float32), np.zeros((2, 1), np.float32), candidates, 100)
