"""Good, bad and cancelled requests over both protocols for a long time: all answers are right, and nothing grows.

NANN_SOAK_S sets the time (`make soak`: 30 minutes; CI: 3 minutes). Over gRPC, requests are cancelled only if Triton
supports it, or with NANN_SOAK_CANCEL_GRPC=1.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import socket
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
from support.live_bundle import SEEDED, item_ids
from support.reference import OfflineEnsemble
from support.server_usage import RESOURCES, growth, usage_of

from nann.bundle import Bundle
from nann.clients import RetrievalClient
from nann.errors import RequestError
from nann.search_params import SearchParams

SOAK_S = float(os.environ.get("NANN_SOAK_S", "180"))
WARM_UP_SHARE = 1 / 3
"""Allocators, thread pools and connections settle in this share of the time, which the regression leaves out."""
MAX_GROWTH = {"pss_bytes": 12 << 20, "shm_bytes": 1 << 20, "threads": 2, "file_descriptors": 4}
"""Over the measured time: slope by linear regression, times its length."""
BEARS_CANCELLATION = (2, 57)
"""Release 25.04. Before that a request that is cancelled in the moment of its answer can take Triton's gRPC down: its
issues 7368 and 8034."""
BAD = (
    ({"behavior_item_ids": [1060], "top_k": 1001}, "top_k: 1001 is out of bounds"),
    ({"behavior_item_ids": [1060], "ef": "1,2,3,4"}, "ef is '1,2,3,4'"),
    ({"behavior_item_ids": [1060], "user_profile": [[1]]}, "the model knows no user profile"),
    ({"behavior_item_ids": [1060] * 10_001}, "expected at most 10000"),
)

pytestmark = [pytest.mark.triton, pytest.mark.slow, pytest.mark.timeout(SOAK_S + 120)]


class Users:
    """Requests with their expected answers, which were computed offline."""

    def __init__(self, bundle: Bundle, count: int = 48) -> None:
        ensemble, generator = OfflineEnsemble(bundle), np.random.default_rng(7)
        self._cases = []
        for number in range(count):
            ids = generator.choice(item_ids()[20:], size=1 + number % 15, replace=False).tolist()
            params = SEEDED if number % 2 else bundle.search_params
            top_k = 1 + number % params.top_k
            items, scores, _ = ensemble.retrieve(ids, SearchParams(top_k, params.ef, params.rounds, params.seeds))
            entry = {"entry": params.entry, "top_k": top_k}
            self._cases.append((ids, entry, items, scores))

    def ask(self, client: RetrievalClient, number: int) -> None:
        """Sends one of the requests and compares the answer."""
        ids, parameters, items, scores = self._cases[number % len(self._cases)]
        result = client.retrieve(ids, **parameters)
        np.testing.assert_array_equal(result.item_ids[0], items)
        np.testing.assert_allclose(result.scores[0], scores, rtol=1e-4, atol=1e-5)


class Load:
    """Workers that send requests until they are stopped; the first failure stops all of them."""

    def __init__(self, server, users: Users) -> None:
        self.asked: Counter[str] = Counter()
        self._server, self._users = server, users
        self._stop = threading.Event()

    def run(self, kind: str, step) -> None:
        try:
            for number in itertools.count():
                if self._stop.is_set():
                    return
                step(number)
                self.asked[kind] += 1  # one thread per kind: no lock
        finally:
            self._stop.set()

    def client(self, protocol: str) -> RetrievalClient:
        url = self._server.grpc_url if protocol == "grpc" else self._server.http_url
        return RetrievalClient(url, protocol, timeout_s=30, retry=False)

    def good(self, protocol: str) -> None:
        with self.client(protocol) as client:
            self.run(f"good {protocol}", lambda number: self._users.ask(client, number))

    def bad(self, protocol: str) -> None:
        def step(number: int) -> None:
            arguments, message = BAD[number % len(BAD)]
            with pytest.raises(RequestError) as caught:
                client.retrieve(**arguments)
            assert message in str(caught.value)

        with self.client(protocol) as client:
            self.run(f"bad {protocol}", step)

    def cancelled_grpc(self) -> None:
        """Cancels after 0 to 20 ms; an earlier answer is allowed. Then waits for an answer: see `good_after`."""
        tensor = triton_grpc.InferInput("behavior_item_ids", [4, 3], "INT64")
        tensor.set_data_from_numpy(item_ids()[20:32].reshape(4, 3))
        delays = random.Random(3)

        def step(_: int) -> None:
            done = threading.Event()
            call = client.async_infer("nann", [tensor], lambda **_: done.set())
            done.wait(delays.uniform(0, 0.02))
            call.cancel()
            assert done.wait(30)

        with contextlib.closing(triton_grpc.InferenceServerClient(self._server.grpc_url)) as client:
            self.good_after("grpc", step)

    def cancelled_http(self) -> None:
        """Disconnects after 0 to 20 ms, every second time in the middle of the request. Then waits for an answer."""
        body = b'{"inputs":[{"name":"behavior_item_ids","datatype":"INT64","shape":[1,2],"data":[1060,1063]}]}'
        head = f"POST /v2/models/nann/infer HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        host, port = self._server.http_url.split(":")
        delays = random.Random(4)

        def step(number: int) -> None:
            with socket.create_connection((host, int(port)), timeout=30) as connection:
                connection.sendall(head + (body if number % 2 else body[:20]))
                self._stop.wait(delays.uniform(0, 0.02))

        self.good_after("http", step)

    def good_after(self, protocol: str, cancelled) -> None:
        """Waits for a good answer after each cancelled request: otherwise those would pile up in the queue."""
        with self.client(protocol) as client:

            def step(number: int) -> None:
                cancelled(number)
                self._users.ask(client, number)

            self.run(f"cancelled {protocol}", step)

    def stop(self) -> None:
        self._stop.set()

    def wait(self, seconds: float) -> bool:
        """Whether the load has stopped."""
        return self._stop.wait(seconds)


def bears_grpc_cancellation(server) -> bool:
    if os.environ.get("NANN_SOAK_CANCEL_GRPC") == "1":
        return True
    with contextlib.closing(triton_grpc.InferenceServerClient(server.grpc_url)) as client:
        version = client.get_server_metadata().version
    return tuple(map(int, version.split(".")[:2])) >= BEARS_CANCELLATION


def test_nothing_grows_and_answers_stay_right(server, bundle):
    load = Load(server, Users(bundle))
    workers = [
        *((worker, protocol) for worker in (load.good, load.bad) for protocol in ("grpc", "http")),
        (load.cancelled_http,),
    ]
    if bears_grpc_cancellation(server):
        workers.append((load.cancelled_grpc,))
    times, samples = [], []
    start = time.monotonic()
    with ThreadPoolExecutor(len(workers)) as pool:
        running = [pool.submit(*worker) for worker in workers]
        try:
            while (now := time.monotonic() - start) < SOAK_S and not load.wait(min(1, SOAK_S / 100)):
                if now > SOAK_S * WARM_UP_SHARE:
                    times.append(now)
                    samples.append(usage_of(server.pid))
        finally:
            load.stop()
    for worker in running:
        worker.result()  # raises the error of the worker

    measured_s = times[-1] - times[0]
    slopes = growth(times, samples)
    print(f"\n{dict(load.asked)} requests in {SOAK_S:.0f} s; over the last {measured_s:.0f} s, {len(samples)} samples:")
    for name in RESOURCES:
        level = np.mean([getattr(sample, name) for sample in samples])
        print(f"  {name:16} mean {level:14,.0f}  slope {slopes[name] * 3600:+14,.1f} an hour")
    assert min(load.asked.values()) > SOAK_S / 2, "every kind of request was made throughout"
    assert {name: slopes[name] * measured_s for name in RESOURCES if slopes[name] * measured_s > MAX_GROWTH[name]} == {}
