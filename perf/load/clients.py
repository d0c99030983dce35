"""Load from our own client. Closed loop finds a server's peak; open loop shows what happens beyond the peak."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import cycle, islice
from typing import Any

import numpy as np

from nann.errors import NannError, RequestTimeout, ServerOverloaded

_MOST_IN_FLIGHT = 1024


@dataclass(frozen=True)
class LoadResult:
    """What a server answered at one concurrency, after the warm-up.

    Attributes:
        concurrency: number of clients.
        requests: answered ones.
        qps: answered requests per second.
        p50_ms: median latency; p99_ms likewise.
    """

    concurrency: int
    requests: int
    qps: float
    p50_ms: float
    p99_ms: float


@dataclass(frozen=True)
class OpenLoadResult:
    """What a server answered under a load that does not wait for its answers.

    Attributes:
        offered_qps: requests sent per second.
        goodput_qps: requests answered per second.
        overloaded: share of the requests that the server refused with `ServerOverloaded`.
        late: share that ended with `RequestTimeout`.
        failed: share that ended with another error.
        p50_ms: median latency of the answered requests, from when each was due; p99_ms likewise.
        refusal_p99_ms: 99th percentile of the time until a refusal; 0 where no request was refused.
    """

    offered_qps: float
    goodput_qps: float
    overloaded: float
    late: float
    failed: float
    p50_ms: float
    p99_ms: float
    refusal_p99_ms: float


@dataclass(frozen=True)
class LoadTest:
    """Requests to one server.

    Attributes:
        url: `host:port` of gRPC.
        users: histories to ask for in turn, external ids.
        duration_s: how long to measure.
        warm_up_s: how long to send requests before that.
        options: of `RetrievalClient.retrieve`, for every request.
    """

    url: str
    users: Sequence[Sequence[int]]
    duration_s: float
    warm_up_s: float = 1.0
    options: Mapping[str, Any] = field(default_factory=dict)

    def closed_loop(self, concurrency: int, processes: int | None = None) -> LoadResult:
        """Each client sends its next request when it has its answer; each begins with another user.

        Every client is a process, so that Python's lock is not what is measured. Where the server is slow compared with
        Python, `processes` makes the clients threads of that many processes.
        """
        processes = min(processes or concurrency, concurrency)
        clients = [
            replace(self, users=[*self.users[start:], *self.users[:start]])
            for start in _starts(self.users, concurrency)
        ]
        with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn")) as pool:
            shares = (clients[first::processes] for first in range(processes))
            parts = [part for parts in pool.map(_ask_together, shares) for part in parts]
        latencies = np.concatenate([np.array(part) for part in parts]) / 1e6
        if len(latencies) == 0:
            raise RuntimeError(f"no request was answered within {self.duration_s} s")
        p50, p99 = np.percentile(latencies, (50, 99))
        return LoadResult(concurrency, len(latencies), len(latencies) / self.duration_s, float(p50), float(p99))

    def open_loop(self, offered_qps: float, seed: int = 0) -> OpenLoadResult:
        """Requests arrive as a Poisson process of this random seed, as those of users do, answered or not.

        What is due within the measurement is counted, whenever it ends. One process sends everything.
        """
        from ...clients import RetrievalClient

        whole_s = self.warm_up_s + self.duration_s
        due_s = np.cumsum(np.random.default_rng(seed).exponential(1 / offered_qps, int(offered_qps * whole_s * 2)))
        due_s = due_s[due_s < whole_s]
        with (
            RetrievalClient(self.url, timeout_s=60, retry=False) as client,
            ThreadPoolExecutor(_MOST_IN_FLIGHT) as pool,
        ):
            client.retrieve(self.users[0], **self.options)
            start_s = time.monotonic()

            def ask(ids: Sequence[int], due_s: float) -> tuple[type[NannError] | None, float]:
                try:
                    client.retrieve(ids, **self.options)
                except NannError as error:
                    return type(error), time.monotonic() - start_s - due_s
                return None, time.monotonic() - start_s - due_s

            asked = []
            for due, ids in zip(due_s.tolist(), cycle(self.users)):
                time.sleep(max(0.0, start_s + due - time.monotonic()))
                asked.append(pool.submit(ask, ids, due))
            outcomes = [future.result() for future, due in zip(asked, due_s, strict=True) if due >= self.warm_up_s]
        return _summary(outcomes, self.duration_s)


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


def _ask_together(clients: Sequence[LoadTest]) -> list[list[int]]:
    with ThreadPoolExecutor(len(clients)) as pool:
        return list(pool.map(_ask, clients))


def _ask(test: LoadTest) -> list[int]:
    """Latencies in ns of one client's requests that ended within the measurement."""
    from ...clients import RetrievalClient

    latencies: list[int] = []
    with RetrievalClient(test.url, timeout_s=60, retry=False) as client:
        client.retrieve(test.users[0], **test.options)
        start_ns = time.monotonic_ns() + int(test.warm_up_s * 1e9)
        end_ns = start_ns + int(test.duration_s * 1e9)
        for ids in cycle(test.users):
            before_ns = time.monotonic_ns()
            if before_ns >= end_ns:
                return latencies
            client.retrieve(ids, **test.options)
            after_ns = time.monotonic_ns()
            if start_ns <= after_ns <= end_ns:
                latencies.append(after_ns - before_ns)
    return latencies
