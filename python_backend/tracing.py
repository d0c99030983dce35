"""Whether traces are wanted, and what Triton is told about them: by OpenTelemetry's own environment variables.

Triton itself takes the trace context (`traceparent`) from a request's headers, reports a span for the request and one
for each model of the ensemble, and hands the context on to our Python processes and from them to the scorer. What it
can't see is added by `nann.python_backend.watch.spans`: the rounds of a search.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from nann.errors import ConfigError
from nann.packages import find_package

SERVICE_NAME = "nann"
"""What traces call the server where OTEL_SERVICE_NAME says nothing."""
_TRACES_ENDPOINT = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
_ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
# "Only requests that bring a trace context": Triton knows no such rate, so one in as many as it can count.
_NEVER = 2**31 - 1


def traces_endpoint(environment: Mapping[str, str]) -> str | None:
    """Where spans are sent (OTLP over HTTP); None: nowhere, tracing is off."""
    if environment.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return None
    if environment.get("OTEL_TRACES_EXPORTER", "otlp") != "otlp":
        return None
    if endpoint := environment.get(_TRACES_ENDPOINT):
        return endpoint
    endpoint = environment.get(_ENDPOINT)
    return f"{endpoint.rstrip('/')}/v1/traces" if endpoint else None


def triton_trace_options(environment: Mapping[str, str]) -> list[str]:
    """Options of tritonserver; none where tracing is off.

    Raises:
        ConfigError: if the sampler is none that Triton can follow.
        ModuleNotFoundError: if OpenTelemetry, with which we report the rounds of a search, is not installed.
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
    """Triton traces one in so many of the requests without a context; those with one, always."""
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
