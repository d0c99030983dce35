"""Closed-loop load: so many clients, each asking the next request as soon as it has its answer."""

from __future__ import annotations

import multiprocessing
import time
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import cycle, islice

import numpy as np


@dataclass(frozen=True)
class LoadResult:
    """What a server gave at one concurrency.

    Attributes:
        concurrency: clients.
        requests: answered after the warm-up.
        qps: requests a second.
        p50_ms: median latency; p99_ms likewise.
    """

    concurrency: int
    requests: int
    qps: float
    p50_ms: float
    p99_ms: float


def run_load(
    url: str, users: Sequence[Sequence[int]], concurrency: int, duration_s: float, warm_up_s: float = 1.0
) -> LoadResult:
    """Asks a server for `duration_s` seconds after a warm-up.

    Every client is a process of its own, so that Python's lock does not become what is measured.

    Args:
        url: `host:port` of gRPC.
        users: histories to ask for, external ids; each client goes round them from another place.
        concurrency: clients.
        duration_s: how long to measure.
        warm_up_s: how long to ask before that.
    """
    context = multiprocessing.get_context("spawn")
    shares = [(url, [*users[start:], *users[:start]], duration_s, warm_up_s) for start in _starts(users, concurrency)]
    with ProcessPoolExecutor(concurrency, mp_context=context) as pool:
        parts = list(pool.map(_ask, shares))
    latencies = np.concatenate([np.array(part) for part in parts]) / 1e6
    if len(latencies) == 0:
        raise RuntimeError(f"no request was answered within {duration_s} s")
    p50, p99 = np.percentile(latencies, (50, 99))
    return LoadResult(concurrency, len(latencies), len(latencies) / duration_s, float(p50), float(p99))


def read_metrics(url: str) -> dict[tuple[str, str], float]:
    """Triton's counters: (metric, model) -> value, summed over versions."""
    with urllib.request.urlopen(f"http://{url}/metrics", timeout=10) as response:
        lines = response.read().decode().splitlines()
    values: dict[tuple[str, str], float] = {}
    for line in lines:
        if line.startswith("#") or 'model="' not in line:
            continue
        name, rest = line.split("{", 1)
        labels, value = rest.rsplit("} ", 1)
        key = (name, labels.split('model="', 1)[1].split('"', 1)[0])
        values[key] = values.get(key, 0.0) + float(value)
    return values


def _starts(users: Sequence[Sequence[int]], concurrency: int) -> list[int]:
    return list(islice(cycle(range(0, len(users), max(1, len(users) // concurrency))), concurrency))


def _ask(share: tuple[str, Sequence[Sequence[int]], float, float]) -> list[int]:
    """Latencies in ns of the requests that began and ended within the measurement."""
    from clients import RetrievalClient

    url, users, duration_s, warm_up_s = share
    latencies: list[int] = []
    with RetrievalClient(url, timeout_s=60) as client:
        client.retrieve(users[0])
        start_ns = time.monotonic_ns() + int(warm_up_s * 1e9)
        end_ns = start_ns + int(duration_s * 1e9)
        for ids in cycle(users):
            before_ns = time.monotonic_ns()
            if before_ns >= end_ns:
                return latencies
            client.retrieve(ids)
            after_ns = time.monotonic_ns()
            if before_ns >= start_ns and after_ns <= end_ns:
                latencies.append(after_ns - before_ns)
    return latencies
