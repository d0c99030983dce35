"""Turns OpenTelemetry's environment variables into Triton's options for tracing.

Triton takes the trace context (`traceparent`) from a request's headers. It reports a span for the request and one for
each model of the ensemble. It passes the context to our Python processes, and from them to the scorer. Triton can't see
the rounds of a search: `nann.python_backend.watch.spans` reports those.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from nann.errors import ConfigError
from nann.packages import find_package

SERVICE_NAME = "nann"
"""The server's name in traces if OTEL_SERVICE_NAME is not set."""
_TRACES_ENDPOINT = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
_ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
# Triton can't be told to trace only requests that bring a trace context; of the others it traces one in this many.
_NEVER = 2**31 - 1


def traces_endpoint(environment: Mapping[str, str]) -> str | None:
    """Where spans are sent (OTLP over HTTP); None: tracing is off."""
    if environment.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return None
    if environment.get("OTEL_TRACES_EXPORTER", "otlp") != "otlp":
        return None
    if endpoint := environment.get(_TRACES_ENDPOINT):
        return endpoint
    endpoint = environment.get(_ENDPOINT)
    return f"{endpoint.rstrip('/')}/v1/traces" if endpoint else None


def triton_trace_options(environment: Mapping[str, str]) -> list[str]:
    """Options of tritonserver; none if tracing is off.

    Raises:
        ConfigError: if Triton has no counterpart of the sampler.
        ModuleNotFoundError: if OpenTelemetry is not installed, which reports the rounds of a search.
    """
    endpoint = traces_endpoint(environment)
    if endpoint is None:
        return []
    find_package("opentelemetry.sdk")
    find_package("opentelemetry.exporter.otlp.proto.http")
    settings = [
        "mode=opentelemetry",
        "level=TIMESTAMPS",
        f"rate={_one_in(environment)}",
        f"opentelemetry,url={endpoint}",
        f"opentelemetry,resource=service.name={environment.get('OTEL_SERVICE_NAME', SERVICE_NAME)}",
    ]
    if delay_ms := environment.get("OTEL_BSP_SCHEDULE_DELAY"):
        settings.append(f"opentelemetry,bsp_schedule_delay={delay_ms}")
    return [f"--trace-config={setting}" for setting in settings]


def _one_in(environment: Mapping[str, str]) -> int:
    """N: of the requests without a trace context Triton traces one in N, and it traces all others."""
    name = environment.get("OTEL_TRACES_SAMPLER", "parentbased_always_on")
    text = environment.get("OTEL_TRACES_SAMPLER_ARG", "1")
    sampler = name.removeprefix("parentbased_")
    if sampler == "always_on":
        return 1
    if sampler == "always_off":
        return _NEVER
    try:
        share = float(text) if sampler == "traceidratio" else math.nan
    except ValueError:
        share = math.nan
    if not 0 <= share <= 1:
        raise ConfigError(
            f"OTEL_TRACES_SAMPLER is {name!r} and OTEL_TRACES_SAMPLER_ARG {text!r}; expected always_on, always_off or "
            "traceidratio with a number from 0 to 1, each also with parentbased_ before it"
        )
    return min(round(1 / share), _NEVER) if share > 0 else _NEVER
