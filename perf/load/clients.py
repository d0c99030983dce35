"""Load: closed loop, which finds a server's peak, and open loop, which shows what it does beyond that.

Closed loop: so many clients, each asking the next request as soon as it has its answer. Open loop: requests come when
they come, whether or not earlier ones were answered, as those of users do.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Any

import numpy as np

from nann.errors import NannError, RequestTimeout, ServerOverloaded

_MOST_IN_FLIGHT = 1024


@dataclass(frozen=True)
class LoadResult:
    """What a server gave at one concurrency.

    Attributes:
        concurrency: clients.
        requests: answered between the warm-up and the end.
        qps: requests a second.
        p50_ms: median latency; p99_ms likewise.
    """

    concurrency: int
    requests: int
    qps: float
    p50_ms: float
    p99_ms: float


@dataclass(frozen=True)
class OpenLoadResult:
    """What a server gave under a load that does not wait for it.

    Attributes:
        offered_qps: requests a second that came.
        goodput_qps: requests a second that were answered.
        overloaded: share of the requests that the server refused with `ServerOverloaded`.
        late: share that ended with `RequestTimeout`.
        failed: share that ended with another error.
        p50_ms: median latency of the answered, from when the request was due; p99_ms likewise.
        refusal_p99_ms: 99th percentile of how long a refused request waited for its refusal; 0 where none was refused.
    """

    offered_qps: float
    goodput_qps: float
    overloaded: float
    late: float
    failed: float
    p50_ms: float
    p99_ms: float
    refusal_p99_ms: float


def run_load(
    url: str,
    users: Sequence[Sequence[int]],
    concurrency: int,
    duration_s: float,
    warm_up_s: float = 1.0,
    *,
    processes: int | None = None,
    options: dict[str, Any] | None = None,
) -> LoadResult:
    """Closed loop: asks a server for `duration_s` seconds after a warm-up.

    Every client is a process of its own, so that Python's lock does not become what is measured.

    Args:
        url: `host:port` of gRPC.
        users: histories to ask for, external ids; each client goes round them from another place.
        concurrency: clients.
        duration_s: how long to measure.
        warm_up_s: how long to ask before that.
        processes: share the clients out among so many, as threads: for servers that are slow beside Python.
        options: of `RetrievalClient.retrieve`, for every request.
    """
    context = multiprocessing.get_context("spawn")
    clients = [
        (url, [*users[start:], *users[:start]], duration_s, warm_up_s, options or {})
        for start in _starts(users, concurrency)
    ]
    processes = min(processes or concurrency, concurrency)
    with ProcessPoolExecutor(processes, mp_context=context) as pool:
        shares = (clients[first::processes] for first in range(processes))
        parts = [part for parts in pool.map(_ask_together, shares) for part in parts]
    latencies = np.concatenate([np.array(part) for part in parts]) / 1e6
    if len(latencies) == 0:
        raise RuntimeError(f"no request was answered within {duration_s} s")
    p50, p99 = np.percentile(latencies, (50, 99))
    return LoadResult(concurrency, len(latencies), len(latencies) / duration_s, float(p50), float(p99))


def run_open_load(
    url: str,
    users: Sequence[Sequence[int]],
    offered_qps: float,
    duration_s: float,
    warm_up_s: float = 1.0,
    *,
    seed: int = 0,
    options: dict[str, Any] | None = None,
) -> OpenLoadResult:
    """Open loop: requests arrive as a Poisson process, from one process.

    Args:
        url: `host:port` of gRPC.
        users: histories to ask for, external ids, in turn.
        offered_qps: requests a second.
        duration_s: how long to measure; what is due then is counted, whenever it ends.
        warm_up_s: how long to ask before that.
        seed: of the arrivals.
        options: of `RetrievalClient.retrieve`, for every request.
    """
    from ...clients import RetrievalClient

    gaps = np.random.default_rng(seed).exponential(1 / offered_qps, int(offered_qps * (warm_up_s + duration_s) * 2))
    due_s = np.cumsum(gaps)
    due_s = due_s[due_s < warm_up_s + duration_s]
    options = options or {}
    with RetrievalClient(url, timeout_s=60) as client, ThreadPoolExecutor(_MOST_IN_FLIGHT) as pool:
        client.retrieve(users[0], **options)
        start_s = time.monotonic()

        def ask(ids: Sequence[int], due_s: float) -> tuple[type[NannError] | None, float]:
            try:
                client.retrieve(ids, **options)
            except NannError as error:
                return type(error), time.monotonic() - start_s - due_s
            return None, time.monotonic() - start_s - due_s

        asked = []
        for due, ids in zip(due_s.tolist(), cycle(users)):
            time.sleep(max(0.0, start_s + due - time.monotonic()))
            asked.append(pool.submit(ask, ids, due))
        outcomes = [future.result() for future, due in zip(asked, due_s, strict=True) if due >= warm_up_s]
    return _summary(outcomes, duration_s)


def _summary(outcomes: Sequence[tuple[type[NannError] | None, float]], duration_s: float) -> OpenLoadResult:
    def latencies_ms(kind: type[NannError] | None) -> list[float]:
        return [1000 * latency for error, latency in outcomes if error is kind]

    answered, overloaded, late = (latencies_ms(kind) for kind in (None, ServerOverloaded, RequestTimeout))
    total = max(1, len(outcomes))
    return OpenLoadResult(
        offered_qps=len(outcomes) / duration_s,
        goodput_qps=len(answered) / duration_s,
        overloaded=len(overloaded) / total,
        late=len(late) / total,
        failed=(len(outcomes) - len(answered) - len(overloaded) - len(late)) / total,
        p50_ms=float(np.percentile(answered or [0], 50)),
        p99_ms=float(np.percentile(answered or [0], 99)),
        refusal_p99_ms=float(np.percentile(overloaded or [0], 99)),
    )


def _starts(users: Sequence[Sequence[int]], concurrency: int) -> list[int]:
    return list(islice(cycle(range(0, len(users), max(1, len(users) // concurrency))), concurrency))


_Client = tuple[str, Sequence[Sequence[int]], float, float, dict[str, Any]]


def _ask_together(clients: Sequence[_Client]) -> list[list[int]]:
    with ThreadPoolExecutor(len(clients)) as pool:
        return list(pool.map(_ask, clients))


def _ask(share: _Client) -> list[int]:
    """Latencies in ns of the requests that ended within the measurement."""
    from ...clients import RetrievalClient

    url, users, duration_s, warm_up_s, options = share
    latencies: list[int] = []
    with RetrievalClient(url, timeout_s=60) as client:
        client.retrieve(users[0], **options)
        start_ns = time.monotonic_ns() + int(warm_up_s * 1e9)
        end_ns = start_ns + int(duration_s * 1e9)
        for ids in cycle(users):
            before_ns = time.monotonic_ns()
            if before_ns >= end_ns:
                return latencies
            client.retrieve(ids, **options)
            after_ns = time.monotonic_ns()
            if start_ns <= after_ns <= end_ns:
                latencies.append(after_ns - before_ns)
    return latencies
