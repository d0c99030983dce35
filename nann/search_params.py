"""What one search may spend: top_k, ef and rounds, with their bounds, and where the walk enters the graph."""

from __future__ import annotations

from dataclasses import dataclass

from nann.errors import RequestError
from nann.signature import ENTRY_LAYERS, ENTRY_SEEDS, PARAM_ENTRY, PARAM_SEED_EF, PARAM_SEEDS


@dataclass(frozen=True)
class SeedParams:
    """The light walk that finds a search's entry points on the ground layer (`nann.light_walk`; not the paper's).

    Attributes:
        count: how many seeds it gives.
        ef: length of its W; at least `count`.
    """

    count: int
    ef: int

    def __post_init__(self) -> None:
        if self.count < 1:
            raise RequestError(f"seeds is {self.count}; expected at least 1")
        if self.ef < self.count:
            raise RequestError(f"seed_ef is {self.ef} and seeds {self.count}; expected seed_ef >= seeds")


@dataclass(frozen=True)
class SearchParams:
    """Parameters of one search (Algorithms 1 and 2).

    `ef` and `rounds` hold one value a layer that the scorer walks, the highest first and the ground layer last, as the
    paper writes {ef2, ef1, ef0} and {T2, T1, T0}. With `seeds` that is the ground layer alone.

    Attributes:
        top_k: how many items to return.
        ef: length of W, one a layer.
        rounds: one a layer.
        seeds: None: the walk enters at all items of the entry layer, as in the paper. Otherwise it enters the ground
            layer at the seeds that a light walk finds.
    """

    top_k: int
    ef: tuple[int, ...]
    rounds: tuple[int, ...]
    seeds: SeedParams | None = None

    @property
    def entry(self) -> str:
        """The entry strategy, `ENTRY_LAYERS` or `ENTRY_SEEDS` of `nann.signature`."""
        return ENTRY_LAYERS if self.seeds is None else ENTRY_SEEDS

    def layer_count(self, entry_layer: int) -> int:
        """How many layers of a graph with this entry layer the scorer walks: as many values ef and rounds must have."""
        return entry_layer + 1 if self.seeds is None else 1

    def asked(
        self,
        *,
        top_k: int | None = None,
        ef: tuple[int, ...] | None = None,
        rounds: tuple[int, ...] | None = None,
        seeds: int | None = None,
        seed_ef: int | None = None,
    ) -> SearchParams:
        """These parameters with what someone asks for laid over them; None: nothing.

        Who asks for more items than ef of the ground layer, and says nothing about ef, gets that ef raised to top_k; so
        for more seeds than ef of the light walk.

        Raises:
            RequestError: if the whole does not fit together.
        """
        if self.seeds is None and (seeds is not None or seed_ef is not None):
            name = PARAM_SEEDS if seeds is not None else PARAM_SEED_EF
            raise RequestError(
                f'request parameter {name} came without {PARAM_ENTRY} "{ENTRY_SEEDS}"; expected both, or neither'
            )
        walk = self.seeds
        if walk is not None:
            count = walk.count if seeds is None else seeds
            walk = SeedParams(count, max(walk.ef, count) if seed_ef is None else seed_ef)
        top_k = self.top_k if top_k is None else top_k
        return SearchParams(
            top_k,
            (*self.ef[:-1], max(self.ef[-1], top_k)) if ef is None else ef,
            self.rounds if rounds is None else rounds,
            walk,
        )

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
        if self.seeds is not None and len(self.ef) != 1:
            raise RequestError(
                f"ef is {list(self.ef)}; expected one value with seeds: the walk enters on the ground layer"
            )


PAPER_SEARCH_PARAMS = SearchParams(top_k=200, ef=(100, 200, 400), rounds=(1, 1, 3))
"""Section 4's defaults."""
