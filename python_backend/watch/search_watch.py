"""Reports on beam_retrieval: metrics of every search, quality and traces of some."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from nann.bundle import Bundle
from nann.item_rows import ItemRows
from nann.scorer import Float32Array, Scorer
from nann.signature import ITEM_IDS

from ..search.clock import SearchClock, Timeline
from ..search.outcomes import Kind, Outcome
from ..search.retriever import Retriever, Search
from ..search.scorer_work import ScorerWork
from ..settings import config_share
from ..tracing import SERVICE_NAME, traces_endpoint
from .catalog_metrics import CatalogMetrics
from .metrics import SearchMetrics
from .publisher import MetricsPublisher
from .quality import QualityMonitor

if TYPE_CHECKING:
    from .spans import SearchSpans

_QUALITY_LOAD = 0.05

StatesOf = Callable[[Float32Array], Float32Array]
"""Turns `Search.users.states` of some users into their user states in host memory, `float32[B, S]`."""


class SearchWatch:
    """Watches the batches of one instance of beam_retrieval.

    Args:
        config: of the model.
        bundle: with item ids, and item rows if the scorer has no item table.
        retriever: searches it.
        publisher: of the metrics.
        make_scorer: makes the scorer that serves, from the items' rows if it needs them.

    Raises:
        ModuleNotFoundError: if tracing is on and OpenTelemetry, of the extra `trace`, is not installed.
        InvalidInputError: if a parameter of config.pbtxt is out of range.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        bundle: Bundle,
        retriever: Retriever,
        publisher: MetricsPublisher,
        make_scorer: Callable[[ItemRows | None], Scorer],
    ) -> None:
        share, load = config_share(config, "quality_share"), config_share(config, "quality_load", _QUALITY_LOAD)
        self._spans = _open_spans(os.environ)
        self._metrics = SearchMetrics(publisher, bundle)
        self._retriever = retriever
        CatalogMetrics(publisher, lambda: retriever.live)
        self._monitor = None
        if share and load:
            self._monitor = QualityMonitor(make_scorer, share, load, publisher)

    def start(self, requests: Sequence[Any], parsed: Sequence[Search | Outcome]) -> SearchClock:
        """Makes the clock for the search of a batch."""
        if self._spans is None:
            return SearchClock()
        traced = [
            (one, request.trace(), context)
            for request, one in zip(requests, parsed, strict=True)
            if isinstance(one, Search) and (context := self._spans.context(request)) is not None
        ]
        return Timeline(traced=traced) if traced else SearchClock()

    def count(self, outcomes: Iterable[Outcome]) -> None:
        """Counts requests by how they ended."""
        self._metrics.requests(outcomes)

    def restarted(self, processes: Mapping[str, int]) -> None:
        """Counts restarted processes, by the name of their model."""
        self._metrics.restarted(processes)

    def end(
        self,
        searches: Sequence[Search],
        outcomes: Sequence[Outcome],
        clock: SearchClock,
        work: ScorerWork,
        states_of: StatesOf,
    ) -> None:
        """Reports on a batch after its search.

        Args:
            searches: its valid requests.
            outcomes: the outcome of each.
            clock: from `start`.
            work: the work of its scorer.
            states_of: see `StatesOf`.
        """
        self._metrics.batch(searches, clock, work)
        if self._spans is not None and isinstance(clock, Timeline):
            for search, _, context in clock.traced:
                self._spans.report(context, search, clock)
        if self._monitor is not None:
            for search, outcome in zip(searches, outcomes, strict=True):
                # A partial or degraded answer misses items for a known reason.
                if outcome.kind is Kind.COMPLETE and len(rows := self._monitor.draw(len(search.users))):
                    users = search.users[rows]
                    users = replace(users, states=states_of(users.states), own_items=None)
                    items = self._retriever.item_indices(outcome.outputs[ITEM_IDS][rows])
                    self._monitor.offer(users, items, self._retriever.item_count, self._retriever.rows)

    def close(self) -> None:
        """Reports what is left and ends all threads."""
        if self._monitor is not None:
            self._monitor.close()
        if self._spans is not None:
            self._spans.close()


def _open_spans(environment: Mapping[str, str]) -> SearchSpans | None:
    if traces_endpoint(environment) is None:
        return None
    from .spans import SearchSpans

    return SearchSpans(environment.get("OTEL_SERVICE_NAME", SERVICE_NAME))
