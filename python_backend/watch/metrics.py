"""The metrics of beam_retrieval's searches."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from nann.bundle import Bundle
from nann.signature import PROCESSES

from ..search.clock import SearchClock
from ..search.outcomes import Kind, Outcome
from ..search.retriever import Search
from ..search.scorer_work import ScorerWork
from .publisher import Counter, MetricsPublisher

# Marking visited items counts as expansion: it is too short for its own histogram.
_STAGES = {"light_walk": ("light_walk",), "expand": ("mark", "expand"), "score": ("score",), "select": ("select",)}
_BUCKETS_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
_STAGE_BUCKETS_S = (0.0001, 0.0002, 0.0005, *_BUCKETS_S)


class SearchMetrics:
    """Counters of searches, and histograms of the time of their stages."""

    def __init__(self, publisher: MetricsPublisher, bundle: Bundle) -> None:
        counter, histogram = publisher.counter, publisher.histogram
        self._users = counter("nann_users_total", "Users searched for")
        self._rounds = counter("nann_rounds_total", "Scorer calls that users took part in")
        self._items_scored = counter("nann_items_scored_total", "Items that the scorer evaluated for a user")
        self._scorer_calls = counter("nann_scorer_calls_total", "Scorer calls of searches")
        self._scorer_places = counter("nann_scorer_places_total", "Candidates in scorer calls, padding included")
        self._request_s = histogram(
            "nann_request_duration_seconds", "A request from its arrival to the end of its search", _BUCKETS_S
        )
        self._search_s = histogram("nann_search_duration_seconds", "The search of one batch", _BUCKETS_S)
        self._stages_s = {
            stage: histogram(
                "nann_stage_duration_seconds",
                "One stage of one batch, all rounds",
                _STAGE_BUCKETS_S,
                stage=stage,
            )
            for stage in _STAGES
        }
        self._restarts = {
            spec.name: counter(
                "nann_process_restarts_total", "Processes that died or hung and were loaded again", process=spec.name
            )
            for spec in PROCESSES
        }
        # Made last, and so sent last: when a request is counted, its other metrics have arrived.
        self._requests: dict[Kind, Counter] = {
            kind: counter("nann_requests_total", "Requests by how they ended", outcome=kind.value)
            for kind in Kind
            if kind is not Kind.HEARTBEAT
        }
        self._requests[Kind.HEARTBEAT] = counter("nann_heartbeats_total", "Heartbeats of nann serve that were answered")
        publisher.gauge("nann_bundle_info", "Which bundle answers; always 1", 1, bundle=bundle.bundle_id)
        if created := bundle.notes.get("created"):
            created_s = datetime.fromisoformat(created).timestamp()
            publisher.gauge("nann_bundle_created_timestamp_seconds", "When the bundle was made", created_s)

    def requests(self, outcomes: Iterable[Outcome]) -> None:
        """Counts requests by how they ended."""
        for outcome in outcomes:
            self._requests[outcome.kind].add(1)

    def restarted(self, processes: Mapping[str, int]) -> None:
        """Counts restarted processes, by the name of their model."""
        for name, count in processes.items():
            self._restarts[name].add(count)

    def batch(self, searches: Sequence[Search], clock: SearchClock, work: ScorerWork) -> None:
        """Counts the search of a batch that ends now, with any outcome."""
        now_ns = time.monotonic_ns()
        for search in searches:
            self._request_s.observe((now_ns - search.arrived_ns) / 1e9)
        self._search_s.observe((time.perf_counter_ns() - clock.start_ns) / 1e9)
        for stage, parts in _STAGES.items():
            if spent_ns := sum(clock.elapsed_ns[part] for part in parts):
                self._stages_s[stage].observe(spent_ns / 1e9)
        self._users.add(sum(len(search.users) for search in searches))
        self._rounds.add(work.rounds)
        self._items_scored.add(work.items)
        self._scorer_calls.add(work.calls)
        self._scorer_places.add(work.places)
