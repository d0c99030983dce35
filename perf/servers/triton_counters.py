"""Triton's own counters, and what they show about the time of a request."""

from __future__ import annotations

import time
import urllib.error
import urllib.request
from typing import Any

from nann.signature import BEAM_RETRIEVAL, MODELS, SCORER

Counters = dict[tuple[str, str], float]
"""(metric, model) -> value, summed over versions."""
_OPENS_WITHIN_S = 10.0
_POLL_S = 0.05


def read_metrics(url: str) -> Counters:
    """Triton's counters from its metrics endpoint, `host:port`."""
    lines = _read(f"http://{url}/metrics").splitlines()
    values: Counters = {}
    for line in lines:
        if line.startswith("#") or 'model="' not in line:
            continue
        name, rest = line.split("{", 1)
        labels, value = rest.rsplit("} ", 1)
        key = (name, labels.split('model="', 1)[1].split('"', 1)[0])
        values[key] = values.get(key, 0.0) + float(value)
    return values


def _read(url: str) -> str:
    """Retries for a while: Triton opens this port a moment after it reports that it is ready."""
    deadline_s = time.monotonic() + _OPENS_WITHIN_S
    while True:
        try:
            with urllib.request.urlopen(url, timeout=10) as response:
                return str(response.read().decode())
        except urllib.error.URLError:
            if time.monotonic() > deadline_s:
                raise
        time.sleep(_POLL_S)


def breakdown(before: Counters, after: Counters) -> dict[str, Any]:
    """What Triton counted between two readings.

    Returns:
        users_per_search, scorer_calls_per_search and scorer_share_of_search; and by model: requests, and the means per
        request queue_ms, compute_ms (of its whole batch) and total_ms.
    """

    def grown(metric: str, model: str) -> float:
        return after.get((metric, model), 0.0) - before.get((metric, model), 0.0)

    def each_ms(metric: str) -> dict[str, float]:
        return {
            spec.name: grown(metric, spec.name) / 1e3 / max(1.0, grown("nv_inference_request_success", spec.name))
            for spec in MODELS
        }

    compute_ms = each_ms("nv_inference_compute_infer_duration_us")
    searches = max(1.0, grown("nv_inference_exec_count", BEAM_RETRIEVAL.name))
    scorer_us = grown("nv_inference_compute_infer_duration_us", SCORER.name)
    search_us = max(1.0, searches * compute_ms[BEAM_RETRIEVAL.name] * 1e3)
    return {
        "users_per_search": grown("nv_inference_count", BEAM_RETRIEVAL.name) / searches,
        "scorer_calls_per_search": grown("nv_inference_request_success", SCORER.name) / searches,
        "scorer_share_of_search": scorer_us / search_us,
        "queue_ms": each_ms("nv_inference_queue_duration_us"),
        "compute_ms": compute_ms,
        "total_ms": each_ms("nv_inference_request_duration_us"),
        "requests": {spec.name: grown("nv_inference_request_success", spec.name) for spec in MODELS},
    }
