"""Both clients against a gRPC server that says what a test tells it to: one contract, two implementations."""

import asyncio
import socket
import time

import grpc
import pytest
from support.fake_server import FakeServer, running

from nann.clients import AsyncRetrievalClient, RetrievalClient
from nann.errors import RequestError, RequestTimeout, ServerOverloaded, ServerUnavailable


class SyncOfAsync:
    """The asyncio client with the methods of the sync one."""

    def __init__(self, *arguments, **options):
        self._loop = asyncio.new_event_loop()
        self._client = AsyncRetrievalClient(*arguments, **options)

    def __getattr__(self, name):
        return lambda *arguments, **options: self._loop.run_until_complete(
            getattr(self._client, name)(*arguments, **options)
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._loop.run_until_complete(self._client.close())
        self._loop.close()


@pytest.fixture(params=[RetrievalClient, SyncOfAsync], ids=["sync", "asyncio"])
def open_client(request):
    return request.param


@pytest.fixture
def nobody():
    """An address that refuses every connection."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{held.getsockname()[1]}"


UNAVAILABLE = (grpc.StatusCode.UNAVAILABLE, "not now")


def test_a_request_is_sent_again_with_a_new_key_and_what_is_left_of_its_time(open_client):
    service = FakeServer([UNAVAILABLE] * 3)
    with running(service) as url, open_client(url, timeout_s=20) as client:
        result = client.retrieve([1], top_k=1)
    assert result.item_ids.tolist() == [[7]]
    assert result.latency_ms > 50, "the waits are in it"
    assert len({request.parameters["request_key"].int64_param for request in service.requests}) == 4
    deadlines = [request.parameters["deadline_ms"].int64_param for request in service.requests]
    assert deadlines[0] == 18_000
    assert sorted(deadlines, reverse=True) == deadlines
    assert deadlines[-1] < 17_960


def test_a_deadline_of_the_request_stays(open_client):
    service = FakeServer([UNAVAILABLE])
    with running(service) as url, open_client(url, timeout_s=20) as client:
        client.retrieve([1], top_k=1, deadline_ms=70)
    assert [request.parameters["deadline_ms"].int64_param for request in service.requests] == [70, 70]


@pytest.mark.parametrize(
    ("status", "message", "kind"),
    [
        (grpc.StatusCode.INVALID_ARGUMENT, "no such item", RequestError),
        (grpc.StatusCode.UNAVAILABLE, "Exceeds maximum queue size", ServerOverloaded),
        (grpc.StatusCode.DEADLINE_EXCEEDED, "late", RequestTimeout),
    ],
)
def test_other_errors_are_raised_at_once(open_client, status, message, kind):
    service = FakeServer([(status, message)] * 2)
    with running(service) as url, open_client(url, timeout_s=20) as client, pytest.raises(kind):
        client.retrieve([1], top_k=1)
    assert len(service.requests) == 1


def test_the_answer_to_another_request_is_never_given(open_client):
    with (
        running(FakeServer(other_key=True)) as url,
        open_client(url, timeout_s=20) as client,
        pytest.raises(Exception, match="returned the answer to another request"),
    ):
        client.retrieve([1], top_k=1)


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_retries_end_with_the_timeout(open_client, nobody, protocol):
    with open_client(nobody, protocol, timeout_s=1) as client:
        start_s = time.monotonic()
        with pytest.raises(ServerUnavailable, match=f"no retrieval server answers at {nobody}"):
            client.retrieve([1])
        assert 0.2 < time.monotonic() - start_s < 2


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_without_retries_an_absent_server_is_told_at_once(open_client, nobody, protocol):
    start_s = time.monotonic()
    with open_client(nobody, protocol, timeout_s=30, retry=False) as client:
        assert not client.is_ready()
        with pytest.raises(ServerUnavailable, match=nobody):
            client.bundle_id()
        with pytest.raises(ServerUnavailable, match=nobody):
            client.retrieve([1])
    assert time.monotonic() - start_s < 10


@pytest.mark.parametrize("as_list", [True, False])
def test_requests_go_to_the_servers_that_answer_in_turn(open_client, nobody, as_list):
    first, second = FakeServer(), FakeServer()
    with running(first) as one, running(second) as two:
        urls = [one, nobody, two]
        with open_client(urls if as_list else ",".join(urls), timeout_s=20, retry=False) as client:
            for _ in range(100):
                client.retrieve([1], top_k=1)
            assert client.is_ready()
            assert client.bundle_id() == "abc"
    assert len(first.requests) + len(second.requests) == 100
    assert abs(len(first.requests) - len(second.requests)) <= 10


def test_a_server_that_comes_back_gets_its_share_again(open_client):
    first, second = FakeServer(), FakeServer()
    with running(second) as two:
        with running(first) as one:
            client = open_client([one, two], timeout_s=20)
            for _ in range(10):
                client.retrieve([1], top_k=1)
        for _ in range(10):
            client.retrieve([1], top_k=1)
        assert (len(first.requests), len(second.requests)) == (5, 15)
        with running(first, int(one.rpartition(":")[2])), client:
            ends_s = time.monotonic() + 20
            while len(first.requests) < 50 and time.monotonic() < ends_s:
                client.retrieve([1], top_k=1)
            assert len(first.requests) == 50


def test_where_no_id_is_given_the_server_is_asked_for_their_kind(open_client):
    service = FakeServer()
    with running(service) as url, open_client(url, timeout_s=20) as client:
        with pytest.raises(Exception, match="item_ids"):  # the fake answers with numbers
            client.retrieve([], top_k=1)
        assert client.retrieve(user_id=17, top_k=1).item_ids.tolist() == [[7]]
        assert client.id_kind().name == "text"
    assert service.requests[0].inputs[0].datatype == "BYTES"


def test_a_cancelled_task_does_not_cancel_its_request_on_the_server():
    service = FakeServer()
    answered = []
    answer = service.ModelInfer

    def slow(request, context):
        time.sleep(2)
        answered.append(context.is_active())
        return answer(request, context)

    service.ModelInfer = slow

    async def ask(url):
        async with AsyncRetrievalClient(url, timeout_s=20) as client:
            task = asyncio.create_task(client.retrieve([1], top_k=1))
            await asyncio.sleep(0.2)
            start_s = time.monotonic()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert time.monotonic() - start_s < 1
        assert answered == [True], "the client waits for it before it closes"

    with running(service) as url:
        asyncio.run(ask(url))
