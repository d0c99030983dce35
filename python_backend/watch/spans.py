"""Spans of searches, their rounds and stages. Imported only if tracing is on."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from ..search.clock import RoundTime, StageTime, Timeline
from ..search.retriever import Search


class SearchSpans:
    """Reports searches to OpenTelemetry, whose environment variables set the endpoint and the size of batches.

    Args:
        service: name of the server in traces.
    """

    def __init__(self, service: str) -> None:
        # Triton has already chosen which requests are traced; the sampler follows it.
        self._provider = TracerProvider(resource=Resource.create({SERVICE_NAME: service}), shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self._tracer = self._provider.get_tracer("nann")
        self._propagator = TraceContextTextMapPropagator()

    def context(self, request: Any) -> Context | None:
        """Triton's span of this request; None if it is not traced."""
        carrier = request.trace().get_context()
        return self._propagator.extract(json.loads(carrier)) if carrier else None

    def report(self, context: Context, search: Search, timeline: Timeline) -> None:
        """Reports one request's search, which ends now. `timeline` is that of its batch."""
        end_ns = time.perf_counter_ns()
        epoch_ns = time.time_ns() - end_ns
        attributes = {"nann.users": len(search.users), "nann.top_k": search.params.top_k}
        span = self._start("search", context, epoch_ns + timeline.start_ns, attributes)
        inside = set_span_in_context(span, context)
        start_ns = timeline.start_ns
        for one in timeline.rounds:
            stages = [stage for stage in timeline.stages if start_ns <= stage.start_ns < one.end_ns]
            self._report_round(inside, search, one, stages, epoch_ns)
            start_ns = one.end_ns
        span.end(epoch_ns + end_ns)

    def close(self) -> None:
        """Sends what is left."""
        self._provider.shutdown()

    def _report_round(
        self, context: Context, search: Search, one: RoundTime, stages: list[StageTime], epoch_ns: int
    ) -> None:
        rows = _rows(search, one.searches)
        mine = np.isin(one.trace.rows, rows)
        if not mine.any():
            return
        attributes = {
            "nann.layer": int(one.trace.layers[mine].min()),
            "nann.round": int(one.trace.rounds[mine].max()),
            "nann.users": int(mine.sum()),
            "nann.batch_users": len(mine),
        }
        span = self._start("round", context, epoch_ns + min(stage.start_ns for stage in stages), attributes)
        inside = set_span_in_context(span, context)
        for stage, start_ns, end_ns in stages:
            self._start(stage, inside, epoch_ns + start_ns, {}).end(epoch_ns + end_ns)
        span.end(epoch_ns + one.end_ns)

    def _start(self, name: str, context: Context, start_ns: int, attributes: Mapping[str, int]) -> Span:
        return self._tracer.start_span(name, context, attributes=attributes, start_time=start_ns)


def _rows(search: Search, searches: Iterable[Search]) -> range:
    """The rows of one request in a lockstep search; none if the request is not part of it."""
    first = 0
    for other in searches:
        if other is search:
            return range(first, first + len(search.users))
        first += len(other.users)
    return range(0)
