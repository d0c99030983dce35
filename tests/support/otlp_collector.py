"""A collector of traces for OpenTelemetry's exporters: Triton posts JSON, Python posts protobuf."""

from __future__ import annotations

import contextlib
import functools
import gzip
import json
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


@dataclass(frozen=True)
class Span:
    """One span with ids in hex; `attributes` holds only numbers and strings."""

    service: str
    scope: str
    name: str
    trace_id: str
    span_id: str
    parent_id: str
    start_ns: int
    end_ns: int
    attributes: dict


class Collector:
    """Spans that arrived."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.arrived = threading.Condition()
        self.url = ""

    def of_request(self, ask: Callable[[str], object], expected: Mapping[str, int]) -> list[Span]:
        """Asks under a new trace id, and returns the trace's spans when there are this many of each name.

        It asks again if they do not come: an exporter that waits 10 s for a busy machine throws its spans away.
        """
        for _ in range(3):
            trace_id = os.urandom(16).hex()
            ask(trace_id)
            missing = functools.partial(self._missing, trace_id, expected)
            with self.arrived:
                if self.arrived.wait_for(lambda missing=missing: not missing(), 30):
                    return self._of_trace(trace_id)
        raise AssertionError(f"missing: {missing()}")

    def _of_trace(self, trace_id: str) -> list[Span]:
        return [span for span in self.spans if span.trace_id == trace_id]

    def _missing(self, trace_id: str, expected: Mapping[str, int]) -> Counter[str]:
        return Counter(expected) - Counter(span.name for span in self._of_trace(trace_id))

    def take(self, spans: list[Span]) -> None:
        with self.arrived:
            self.spans += spans
            self.arrived.notify_all()


@contextlib.contextmanager
def collecting() -> Iterator[Collector]:
    collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            collector.take(_of_json(body) if "json" in self.headers["Content-Type"] else _of_protobuf(body))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        collector.url = f"http://127.0.0.1:{server.server_address[1]}"
        yield collector
        server.shutdown()


def _of_protobuf(body: bytes) -> list[Span]:
    return [
        Span(
            next(a.value.string_value for a in resource.resource.attributes if a.key == "service.name"),
            scope.scope.name,
            span.name,
            span.trace_id.hex(),
            span.span_id.hex(),
            span.parent_span_id.hex(),
            span.start_time_unix_nano,
            span.end_time_unix_nano,
            {a.key: getattr(a.value, a.value.WhichOneof("value")) for a in span.attributes},
        )
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]


def _of_json(body: bytes) -> list[Span]:
    return [
        Span(
            next(a["value"]["stringValue"] for a in resource["resource"]["attributes"] if a["key"] == "service.name"),
            scope["scope"]["name"],
            span["name"],
            span["traceId"],
            span["spanId"],
            span.get("parentSpanId", ""),
            int(span["startTimeUnixNano"]),
            int(span["endTimeUnixNano"]),
            {a["key"]: next(iter(a["value"].values())) for a in span.get("attributes", [])},
        )
        for resource in json.loads(body)["resourceSpans"]
        for scope in resource["scopeSpans"]
        for span in scope["spans"]
    ]
