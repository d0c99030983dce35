"""The asyncio client, and both clients' retries and addresses, against live servers."""

import asyncio
import os
import signal
import threading
import urllib.request
from contextlib import ExitStack, contextmanager

import numpy as np
import pytest
from support.live_bundle import ITEMS, item_ids
from support.own_server import own_server
from support.reference import OfflineEnsemble
from support.waiting import wait_until

from nann.clients import AsyncRetrievalClient, RetrievalClient
from nann.errors import NannError, RequestError

pytestmark = pytest.mark.triton

USERS = 40
TOP_KS = (3, 7, 20)
PROTOCOLS = ("grpc", "http")


@pytest.fixture(scope="module")
def pair(live_bundle_path, tmp_path_factory):
    """Two servers of the same bundle, whose queues take 1,000 requests."""
    with ExitStack() as stack:
        yield [
            stack.enter_context(
                own_server(live_bundle_path, tmp_path_factory.mktemp("pair"), queue_size=2000, queue_timeout_s=100)
            )
            for _ in range(2)
        ]


@pytest.fixture(scope="module")
def users():
    rng = np.random.default_rng(7)
    return [rng.choice(item_ids()[10:ITEMS], 8, replace=False).tolist() for _ in range(USERS)]


@pytest.fixture(scope="module")
def expected(bundle, users):
    """The ids that each user gets, best first."""
    offline = OfflineEnsemble(bundle)
    return [offline.retrieve(user)[0] for user in users]


def urls(servers, protocol):
    return [server.grpc_url if protocol == "grpc" else server.http_url for server in servers]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_thousand_requests_at_once_get_their_own_answers_and_errors(pair, users, expected, protocol):
    async def ask_all():
        async with AsyncRetrievalClient(urls(pair[:1], protocol), protocol, timeout_s=100) as client:
            assert await client.is_ready()
            asked = (
                client.retrieve(users[number % USERS], top_k=5000 if number % 10 == 0 else TOP_KS[number % 3])
                for number in range(1000)
            )
            return await asyncio.gather(*asked, return_exceptions=True)

    for number, result in enumerate(asyncio.run(ask_all())):
        if number % 10 == 0:
            assert isinstance(result, RequestError), result
            assert "top_k: 5000 is out of bounds" in str(result)
        else:
            np.testing.assert_array_equal(result.item_ids[0], expected[number % USERS][: TOP_KS[number % 3]])


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_more_users_than_a_request_takes(pair, users, expected, protocol):
    async def ask():
        async with AsyncRetrievalClient(urls(pair, protocol), protocol, timeout_s=60) as client:
            assert await client.bundle_id() == RetrievalClient(pair[0].grpc_url).bundle_id()
            assert await client.served_bundle() == RetrievalClient(pair[0].grpc_url).served_bundle()
            return await client.retrieve(users)

    np.testing.assert_array_equal(asyncio.run(ask()).item_ids, expected)


@pytest.mark.parametrize("protocol", ["grpc", pytest.param("http", marks=pytest.mark.slow)])
def test_a_server_that_restarts_under_load_fails_no_request(pair, users, expected, protocol):
    with load(urls(pair[:1], protocol), protocol, users, expected) as count:
        wait_until(lambda: count.both(10), count)
        pair[0].stop()
        pair[0].start()
        more = count.asynchronous + 20, count.sync + 20
        wait_until(lambda: count.asynchronous > more[0] and count.sync > more[1], count)
    assert count.failures == []


@pytest.mark.parametrize("protocol", [pytest.param("grpc", marks=pytest.mark.slow), "http"])
def test_one_of_two_servers_is_killed_and_comes_back(pair, users, expected, protocol):
    with load(urls(pair, protocol), protocol, users, expected) as count:
        before = [answered(server) for server in pair]
        wait_until(lambda: count.both(50), count)
        first, second = (answered(server) - were for server, were in zip(pair, before, strict=True))
        assert abs(first - second) <= 0.1 * (first + second) / 2 + 5, (first, second)
        os.kill(pair[1].pid, signal.SIGKILL)
        wait_until(lambda: pair[1].pid is None)
        more = count.asynchronous + 50, count.sync + 50
        wait_until(lambda: count.asynchronous > more[0] and count.sync > more[1], count)
        pair[1].stop()
        pair[1].start()
        wait_until(lambda: answered(pair[1]) > 20, count)
    assert count.failures == []


class Count:
    """What the clients of `load` have seen."""

    def __init__(self):
        self.sync = self.asynchronous = 0
        self.failures = []

    def both(self, least):
        return min(self.sync, self.asynchronous) >= least

    def __call__(self):
        return self.sync, self.asynchronous, self.failures


@contextmanager
def load(addresses, protocol, users, expected):
    """Requests of a sync client, and of an asyncio client with four tasks, until the context ends."""
    count, stop = Count(), threading.Event()

    def check(number, result):
        if not np.array_equal(result.item_ids[0], expected[number]):
            count.failures.append(f"user {number} got {result.item_ids[0]}")

    def ask():
        with RetrievalClient(",".join(addresses), protocol, timeout_s=90) as client:
            while not stop.is_set():
                number = count.sync % USERS
                try:
                    check(number, client.retrieve(users[number]))
                except NannError as error:
                    count.failures.append(repr(error))
                count.sync += 1

    async def ask_again(client):
        while not stop.is_set():
            number = count.asynchronous % USERS
            try:
                check(number, await client.retrieve(users[number]))
            except NannError as error:
                count.failures.append(repr(error))
            count.asynchronous += 1

    async def ask_together():
        async with AsyncRetrievalClient(addresses, protocol, timeout_s=90) as client:
            await asyncio.gather(*(ask_again(client) for _ in range(4)))

    threads = [threading.Thread(target=ask), threading.Thread(target=lambda: asyncio.run(ask_together()))]
    for thread in threads:
        thread.start()
    try:
        yield count
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def answered(server) -> float:
    """How many requests a server has answered; 0 if it does not run."""
    try:
        with urllib.request.urlopen(f"http://{server.metrics_url}/metrics", timeout=10) as response:
            lines = response.read().decode().splitlines()
    except OSError:
        return 0
    return sum(
        float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith('nv_inference_request_success{model="nann"')
    )
