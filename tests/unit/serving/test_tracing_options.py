"""Tracing follows OpenTelemetry's environment variables."""

from __future__ import annotations

import sys

import pytest

from nann.errors import ConfigError
from nann.python_backend.tracing import traces_endpoint, triton_trace_options

ON = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318/"}


@pytest.mark.parametrize(
    ("environment", "endpoint"),
    [
        ({}, None),
        (ON, "http://collector:4318/v1/traces"),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://other/path"}, "http://other/path"),
        ({**ON, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://other/path"}, "http://other/path"),
        ({**ON, "OTEL_SDK_DISABLED": "true"}, None),
        ({**ON, "OTEL_TRACES_EXPORTER": "none"}, None),
    ],
)
def test_where_spans_go(environment, endpoint):
    assert traces_endpoint(environment) == endpoint
    assert bool(triton_trace_options(environment)) == (endpoint is not None)


@pytest.mark.parametrize(
    ("sampler", "share", "rate"),
    [
        (None, None, 1),
        ("always_on", None, 1),
        ("parentbased_always_off", None, 2**31 - 1),
        ("traceidratio", "0.01", 100),
        ("parentbased_traceidratio", "0.3", 3),
        ("traceidratio", "0", 2**31 - 1),
    ],
)
def test_triton_traces_one_in_so_many(sampler, share, rate):
    asked = {"OTEL_TRACES_SAMPLER": sampler, "OTEL_TRACES_SAMPLER_ARG": share}
    options = triton_trace_options({**ON, **{key: value for key, value in asked.items() if value is not None}})
    assert f"--trace-config=rate={rate}" in options


@pytest.mark.parametrize(
    "wrong",
    [
        {"OTEL_TRACES_SAMPLER": "jaeger_remote"},
        {"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "2"},
        {"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "often"},
    ],
)
def test_a_sampler_that_triton_cannot_follow_is_refused(wrong):
    with pytest.raises(ConfigError, match=r"OTEL_TRACES_SAMPLER is .*; expected always_on, always_off or traceidratio"):
        triton_trace_options({**ON, **wrong})


def test_the_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk", None)
    assert triton_trace_options({}) == []
    with pytest.raises(ModuleNotFoundError, match=r"No module named 'opentelemetry\.sdk'"):
        triton_trace_options(ON)
