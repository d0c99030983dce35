"""How much a scorer was asked for: what the metrics count."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nann.scorer import Int32Array
from nann.signature import PADDING_ITEM


@dataclass
class ScorerWork:
    """What a scorer has been asked for so far.

    Attributes:
        calls: of the model.
        rounds: the sum over rounds of the users who took part.
        items: candidates, without padding.
        places: of the calls' tensors, padding included.
    """

    calls: int = 0
    rounds: int = 0
    items: int = 0
    places: int = 0

    def add_round(self, candidates: Int32Array) -> None:
        """A round scores `candidates`, `int32[B, C]`, -1 = padding."""
        self.rounds += len(candidates)
        self.items += int(np.count_nonzero(candidates != PADDING_ITEM))

    def add_call(self, candidates: Int32Array) -> None:
        """The model is called with `candidates`, `int32[B, C]`."""
        self.calls += 1
        self.places += candidates.size
