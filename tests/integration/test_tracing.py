"""Traces of a live server, as a collector gets them: one tree from the client's span down to the stages of a round."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
from support import observed, otlp_collector
from support.own_server import own_server

pytestmark = pytest.mark.triton

CALLER = "b7ad6b7169203331"


@pytest.fixture(scope="module")
def traced(live_bundle_path, tmp_path_factory):
    """A server that sends traces to a collector and starts none by itself."""
    with pytest.MonkeyPatch.context() as patch, otlp_collector.collecting() as collector:
        patch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        patch.setenv("OTEL_TRACES_SAMPLER", "parentbased_always_off")
        patch.setenv("OTEL_SERVICE_NAME", "shop-retrieval")
        patch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
        with own_server(live_bundle_path, tmp_path_factory.mktemp("traced")) as server:
            yield server, collector


def ask(server, protocol: str, trace_id: str | None, users: int = 1, **parameters) -> np.ndarray:
    """Any client can start a trace: the context is in a header."""
    library, url = (tritonclient.grpc, server.grpc_url) if protocol == "grpc" else (tritonclient.http, server.http_url)
    ids = np.array([observed.users(1)[0]] * users, np.int64)
    tensor = library.InferInput("behavior_item_ids", ids.shape, "INT64")
    tensor.set_data_from_numpy(ids)
    headers = {"traceparent": f"00-{trace_id}-{CALLER}-01"} if trace_id else None
    with library.InferenceServerClient(url) as client:
        return client.infer("nann", [tensor], headers=headers, parameters=parameters or None).as_numpy("items_scored")


def descends(span, ancestor, by_id) -> bool:
    while span is not None and span is not ancestor:
        span = by_id.get(span.parent_id)
    return span is ancestor


@pytest.mark.parametrize(("protocol", "entry"), [("grpc", "layers"), ("http", "seeds")])
def test_one_tree_from_the_callers_span_to_the_stages_of_a_round(traced, bundle, protocol, entry):
    server, collector = traced
    params = bundle.search_by_entry[entry]
    # The entry layer is one call, whatever its rounds; so are the seeds.
    rounds = 1 + sum(params.rounds[1:] if entry == "layers" else params.rounds)
    once = dict.fromkeys(("InferRequest", "nann", "feature_transform", "user_encoder", "beam_retrieval", "search"), 1)
    each_round = dict.fromkeys(("round", "score", "select", "scorer"), rounds)
    spans = collector.of_request(lambda trace_id: ask(server, protocol, trace_id, entry=entry), once | each_round)
    by_id = {span.span_id: span for span in spans}

    def named(name):
        return [span for span in spans if span.name == name]

    assert {span.service for span in spans} == {"shop-retrieval"}
    (request,) = named("InferRequest")
    assert request.parent_id == CALLER
    for model in ("nann", "feature_transform", "user_encoder", "beam_retrieval"):
        (span,) = named(model)
        assert descends(span, request, by_id)
    (retrieval,) = named("beam_retrieval")
    (search,) = named("search")
    assert search.parent_id == retrieval.span_id
    assert search.attributes["nann.users"] == 1
    found = named("round")
    assert len(found) == rounds
    assert {span.parent_id for span in found} == {search.span_id}
    ground = [span.attributes["nann.round"] for span in found if span.attributes["nann.layer"] == 0]
    assert ground == list(range(0 if entry == "seeds" else 1, params.rounds[-1] + 1))
    for name in ("score", "select"):
        assert sorted(span.parent_id for span in named(name)) == sorted(span.span_id for span in found)
    assert bool(named("light_walk")) == (entry == "seeds")
    # The scorer's own spans, in another process: each call passes the context on.
    assert len(named("scorer")) == rounds
    assert all(descends(span, retrieval, by_id) for span in named("scorer"))
    nested = [(span, by_id[span.parent_id]) for span in spans if span.parent_id in by_id]
    ours = [(span, parent) for span, parent in nested if span.scope == parent.scope == "nann"]
    assert len(ours) >= 3 * rounds, "each round, and its scoring and selecting"
    for span, parent in ours:
        assert parent.start_ns <= span.start_ns <= span.end_ns <= parent.end_ns


def test_a_request_without_a_context_starts_no_trace(traced):
    server, collector = traced
    ask(server, "grpc", None)
    collector.of_request(lambda trace_id: ask(server, "grpc", trace_id), {"InferRequest": 1, "search": 1})
    assert all(span.parent_id for span in collector.spans), "a span without a parent"


def test_answers_are_the_same(traced, server):
    with_trace, _ = traced
    np.testing.assert_array_equal(
        ask(with_trace, "grpc", os.urandom(16).hex(), users=5), ask(server, "grpc", None, users=5)
    )


def test_off_nothing_of_it_is_imported():
    """By default beam_retrieval's process loads no module of OpenTelemetry."""
    code = """
import sys; sys.path.insert(0, "tests")
from support import triton_fakes; sys.modules["triton_python_backend_utils"] = triton_fakes
import nann.python_backend.models.beam_retrieval, nann.python_backend.watch.search_watch as watch
assert watch._open_spans({}) is None
print([name for name in sys.modules if "opentelemetry" in name])
"""
    root = Path(__file__).resolve().parents[2]
    result = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
