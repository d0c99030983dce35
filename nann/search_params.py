"""What one search may spend: top_k, ef and rounds, with their bounds."""

from __future__ import annotations

from dataclasses import dataclass

from nann.errors import RequestError


@dataclass(frozen=True)
class SearchParams:
    """Parameters of one search (Algorithms 1 and 2).

    `ef` and `rounds` hold one value a layer, entry layer first and ground layer last, as the paper writes
    {ef2, ef1, ef0} and {T2, T1, T0}.
    """

    top_k: int
    ef: tuple[int, ...]
    rounds: tuple[int, ...]

    def __post_init__(self) -> None:
        if self.top_k < 1:
            raise RequestError(f"top_k is {self.top_k}; expected at least 1")
        if len(self.ef) != len(self.rounds):
            raise RequestError(f"ef has {len(self.ef)} values and rounds {len(self.rounds)}; expected one each a layer")
        if not self.ef or min(self.ef) < 1:
            raise RequestError(f"ef is {list(self.ef)}; expected at least 1 a layer")
        if min(self.rounds) < 0:
            raise RequestError(f"rounds is {list(self.rounds)}; expected 0 or more a layer")
        if self.ef[-1] < self.top_k:
            raise RequestError(
                f"ef of the ground layer is {self.ef[-1]} and top_k {self.top_k}; expected ef >= top_k: "
                "raise the last value of ef or lower top_k"
            )


PAPER_SEARCH_PARAMS = SearchParams(top_k=200, ef=(100, 200, 400), rounds=(1, 1, 3))
"""Section 4's defaults."""
