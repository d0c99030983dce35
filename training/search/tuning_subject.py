"""What `nann tune` tunes: a bundle's search, its scorer, and the users who are searched for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nann.bundle import Bundle
from nann.reachability import Reachability
from nann.scorer import Scorer
from nann.search_input import SearchIndex
from nann.search_params import SearchParams

from ..data.prepared import PreparedData
from ..scorers import OnnxScorer
from .filter_mix import FilterMix
from .measured_users import MeasuredUsers, bundle_users
from .repair import LINKS, link_orphans

SPLIT = "validation"


@dataclass(frozen=True, eq=False)
class TuningSubject:
    """A bundle and validation users of its data set.

    Attributes:
        bundle: as it was.
        index: its corpus; with links to the items that no search reaches, if these are to be repaired.
        scorer: the bundle's.
        users: with their exact results.
        mix: the filters that they ask with.
        missed: what no search reaches in the bundle as it was.
    """

    bundle: Bundle
    index: SearchIndex
    scorer: Scorer
    users: MeasuredUsers
    mix: FilterMix
    missed: Reachability

    @classmethod
    def of(
        cls, bundle: Bundle, data: PreparedData, top_k: int, users: int | None, filters: Sequence[str], *, repair: bool
    ) -> TuningSubject:
        """Encodes the users and scores every item for them; the arguments are those of `tune_bundle`."""
        queries, batch = bundle_users(bundle, data, SPLIT, users)
        mix, batch = FilterMix.under(filters, bundle, batch)
        scorer = OnnxScorer.of_bundle(bundle)
        missed = Reachability.of(bundle.graph)
        vectors = np.asarray(bundle.item_vectors)
        graph = link_orphans(bundle.graph, vectors, missed.orphans) if repair else bundle.graph
        measured = MeasuredUsers.of(scorer, batch, queries, bundle.item_count, top_k)
        return cls(bundle, SearchIndex(graph, bundle.light_vectors), scorer, measured, mix, missed)

    @property
    def repaired(self) -> bool:
        """Whether items were linked."""
        return self.index.graph is not self.bundle.graph

    def measures(self, params: SearchParams) -> dict[str, Any]:
        """What a search finds and costs, also under each filter, and what it can't reach."""
        found = self.users.search(self.index, self.scorer, params)
        return {
            **self.users.measures(found, self.index.item_count),
            "by_filter": self.mix.measures(self.users, found),
            **self.missed.summary(),
        }

    def repair(self, params: SearchParams) -> dict[str, Any]:
        """What the repair changed, and what the search found and cost before it."""
        old, new = self.bundle.graph, self.index.graph
        before = self.users.measure(self.bundle.index, self.scorer, params)
        return {
            "items_linked": len(self.missed.orphans),
            "links_each": LINKS,
            "links_added": len(new.layers[0].neighbors) - len(old.layers[0].neighbors),
            "unreachable_items_left": len(Reachability.of(new).unreachable),
            "before": {name: before[name] for name in ("coverage", "share_scored", "recall_retrieval")},
        }
