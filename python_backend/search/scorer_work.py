"""Counts the work of a scorer, for the metrics."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nann.scorer import Int32Array
from nann.signature import PADDING_ITEM


@dataclass
class ScorerWork:
    """The work of a scorer so far.

    Attributes:
        calls: calls of the model.
        rounds: number of users who took part, summed over rounds.
        items: candidates, without padding.
        places: candidates in the calls' tensors, padding included.
    """

    calls: int = 0
    rounds: int = 0
    items: int = 0
    places: int = 0

    def add_round(self, candidates: Int32Array) -> None:
        """Counts a round that scores `candidates`, `int32[B, C]`, -1 = padding."""
        self.rounds += len(candidates)
        self.items += int(np.count_nonzero(candidates != PADDING_ITEM))

    def add_call(self, candidates: Int32Array) -> None:
        """Counts a call of the model with `candidates`, `int32[B, C]`."""
        self.calls += 1
        self.places += candidates.size
