import asyncio
import socket
import sys

import numpy as np
import pytest
from tritonclient.utils import InferenceServerException

from nann.clients import AsyncRetrievalClient, InferRequest, RetrievalClient, SearchOptions
from nann.clients._errors import translate
from nann.errors import ConfigError, RequestError, RequestTimeout, ServerError, ServerOverloaded, ServerUnavailable
from nann.signature import DEADLINE_MESSAGE


class FakeTransport:
    """Answers every request with item 7, and keeps what was asked."""

    def __init__(self) -> None:
        self.calls: list[tuple[InferRequest, float]] = []
        self.closed = False

    def infer(self, request, timeout_s):
        self.calls.append((request, timeout_s))
        users, width = len(next(iter(request.inputs.values()))), request.parameters.get("top_k", 1)
        return {
            "item_ids": np.full((users, width), 7),
            "scores": np.ones((users, width), np.float32),
            "unknown_items": np.zeros((users, 1), np.int32),
            "items_scored": np.ones((users, 1), np.int32),
            "items_matching": np.ones((users, 1), np.int64),
            "status": np.zeros((users, 1), np.int32),
            "request_key": np.full((users, 1), request.key),
            "stored_items": np.zeros((users, 1), np.int32),
        }

    def is_ready(self, timeout_s):
        return True

    def settings(self, timeout_s):
        return {"bundle": "abc"}

    def close(self):
        self.closed = True


def test_a_request_goes_through_the_transport_with_its_timeout():
    transport = FakeTransport()
    with RetrievalClient(timeout_s=3, transport=transport) as client:
        assert client.is_ready()
        result = client.retrieve([[1, 2], [3]], top_k=1)
        client.retrieve([1], timeout_s=0.5)
    assert result.item_ids.tolist() == [[7], [7]]
    assert result.latency_ms > 0
    assert [timeout for _, timeout in transport.calls] == [3, 0.5]
    assert [request.parameters for request, _ in transport.calls] == [
        {"top_k": 1, "deadline_ms": 2700},
        {"deadline_ms": 450},
    ]
    assert transport.closed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"protocol": "rest"}, "protocol is 'rest'; expected grpc or http"),
        ({"url": "http://127.0.0.1:8000"}, "expected host:port without a scheme"),
        ({"url": ""}, "url is ''; expected host:port"),
        ({"url": "127.0.0.1:x", "protocol": "http"}, "url is '127.0.0.1:x'; expected host:port"),
        ({"url": "127.0.0.1:99999"}, "url is '127.0.0.1:99999'; expected host:port"),
        ({"timeout_s": 0}, "timeout_s is 0; expected more than 0 and at most 86400 seconds"),
    ],
)
def test_invalid_arguments_are_refused(arguments, message):
    with pytest.raises(ConfigError, match=message):
        RetrievalClient(**arguments)


@pytest.mark.parametrize("timeout_s", [-1, float("nan"), float("inf"), 86_401, "5"])
def test_a_timeout_is_a_number_of_seconds_within_a_day(timeout_s):
    for kind, use in (
        (RequestError, lambda: RetrievalClient(transport=FakeTransport()).retrieve([1], timeout_s=timeout_s)),
        (ConfigError, lambda: RetrievalClient(timeout_s=timeout_s, transport=FakeTransport())),
    ):
        with pytest.raises(kind, match=f"timeout_s is {timeout_s!r}; expected more than 0 and at most 86400 seconds"):
            use()


def test_many_users_are_sent_as_several_requests_each_with_its_own_time():
    transport = FakeTransport()
    client = RetrievalClient(timeout_s=3, transport=transport)
    result = client.retrieve([[number] for number in range(1, 34)], top_k=2)
    assert result.item_ids.shape == result.scores.shape == (33, 2)
    assert result.status.shape == (33,)
    assert [(len(next(iter(request.inputs.values()))), timeout) for request, timeout in transport.calls] == [
        (16, 3),
        (16, 3),
        (1, 3),
    ]
    assert {request.parameters["deadline_ms"] for request, _ in transport.calls} == {2700}


def test_the_server_says_which_bundle_answers():
    client = RetrievalClient(transport=FakeTransport())
    assert client.bundle_id() == "abc"
    assert client.served_bundle().identity is None, "an older server does not say it"


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_a_missing_tritonclient_is_named(monkeypatch, protocol):
    monkeypatch.delitem(sys.modules, f"nann.clients._{protocol}", raising=False)
    monkeypatch.setitem(sys.modules, f"tritonclient.{protocol}", None)
    with pytest.raises(ModuleNotFoundError, match="tritonclient"):
        RetrievalClient(protocol=protocol)


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_nobody_at_the_address(protocol):
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with RetrievalClient(f"127.0.0.1:{port}", protocol, timeout_s=5, retry=False) as client:
        assert not client.is_ready()
        with pytest.raises(ServerUnavailable, match=f"no retrieval server answers at 127.0.0.1:{port}.*nann serve"):
            client.retrieve([1])


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_no_answer_in_time(protocol):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"127.0.0.1:{silent.getsockname()[1]}"
        with (
            # Were the request's own timeout not kept, the test would wait until pytest's limit.
            RetrievalClient(url, protocol, timeout_s=3600) as client,
            pytest.raises(RequestTimeout, match=f"{url} did not answer within 0.3 s"),
        ):
            client.retrieve([1], timeout_s=0.3)


def test_an_answer_that_is_not_http():
    import threading

    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer():
            connection, _ = server.accept()
            connection.recv(1000)
            connection.sendall(b"\0\0\0 not http\r\n\r\n")
            connection.close()

        thread = threading.Thread(target=answer)
        thread.start()
        with (
            RetrievalClient(f"127.0.0.1:{server.getsockname()[1]}", "http", timeout_s=5, retry=False) as client,
            pytest.raises(ServerUnavailable),
        ):
            client.retrieve([1])
        thread.join()


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        ("StatusCode.INVALID_ARGUMENT", RequestError),
        ("400", RequestError),
        ("StatusCode.DEADLINE_EXCEEDED", RequestTimeout),
        ("StatusCode.CANCELLED", RequestTimeout),
        ("StatusCode.UNAVAILABLE", ServerUnavailable),
        ("503", ServerUnavailable),
        ("StatusCode.NOT_FOUND", ServerUnavailable),
        ("404", ServerUnavailable),
        ("StatusCode.INTERNAL", ServerError),
        ("500", ServerError),
        (None, ServerError),
    ],
)
def test_statuses_become_our_errors(status, kind):
    error = translate(InferenceServerException("top_k is wrong", status), "here:1", 2)
    assert type(error) is kind
    assert ("top_k is wrong" in str(error)) or kind is RequestTimeout


@pytest.mark.parametrize("status", ["StatusCode.UNAVAILABLE", "503"])
@pytest.mark.parametrize("words", ["Exceeds maximum queue size", "Request timeout expired"])
def test_an_overloaded_server_is_told_from_an_absent_one(status, words):
    error = translate(InferenceServerException(f"in ensemble 'nann', {words}", status), "here:1", 2)
    assert type(error) is ServerOverloaded
    assert f"here:1 is overloaded: in ensemble 'nann', {words}; try again later" in str(error)


@pytest.mark.parametrize("status", ["StatusCode.CANCELLED", "400"])
def test_the_servers_message_about_a_deadline_is_passed_on(status):
    error = translate(InferenceServerException(f"in ensemble 'nann', {DEADLINE_MESSAGE} (...)", status), "here:1", 2)
    assert type(error) is RequestTimeout
    assert DEADLINE_MESSAGE in str(error)


def test_deadline_policy_and_priority_are_sent():
    transport = FakeTransport()
    client = RetrievalClient(timeout_s=86_400, transport=transport)
    client.retrieve([1], deadline_ms=50, on_deadline="partial", priority=1)
    client.retrieve([1])
    (one, _), (other, _) = transport.calls
    assert (one.parameters, one.priority) == ({"deadline_ms": 50, "on_deadline": "partial"}, 1)
    assert (other.parameters, other.priority) == ({"deadline_ms": 77_760_000}, 0)


def test_keywords_replace_fields_of_the_options():
    transport = FakeTransport()
    client = RetrievalClient(transport=transport)
    options = SearchOptions(top_k=5, ef=(7, 8), deadline_ms=50)
    client.retrieve([1], options)
    client.retrieve([1], options, top_k=6, ef="9,9")
    client.retrieve([1], top_k=6, ef="9,9", deadline_ms=50)
    sent = [request.parameters for request, _ in transport.calls]
    assert sent[0] == {"top_k": 5, "ef": "7,8", "deadline_ms": 50}
    assert sent[1] == sent[2] == {"top_k": 6, "ef": "9,9", "deadline_ms": 50}


def test_invalid_options_are_refused_before_sending():
    transport = FakeTransport()
    client = RetrievalClient(transport=transport)
    with pytest.raises(RequestError, match="top_k: 0 is out of bounds; expected 1 to 2147483647"):
        client.retrieve([1], top_k=0)
    with pytest.raises(RequestError, match=r"options is {'top_k': 5}; expected SearchOptions, or their fields as key"):
        client.retrieve([1], {"top_k": 5})
    assert transport.calls == []


@pytest.mark.parametrize(
    ("keyword", "meant"),
    [("topk", "did you mean 'top_k'[?] "), ("timeout", "did you mean 'timeout_s'[?] "), ("zzz", "")],
)
def test_a_misspelled_keyword_is_named_with_what_was_probably_meant(keyword, meant):
    message = f"unknown request parameter '{keyword}'; {meant}known are top_k, .*ef,"
    with pytest.raises(RequestError, match=message):
        RetrievalClient(transport=FakeTransport()).retrieve([1], **{keyword: 5})
    waiting = AsyncRetrievalClient(transport=FakeTransport()).retrieve([1], **{keyword: 5})
    with pytest.raises(RequestError, match=message):
        asyncio.run(waiting)
