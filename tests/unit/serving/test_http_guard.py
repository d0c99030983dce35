"""The HTTP guard of the preloaded library (`_http_guard.cpp`), in a process that reads as Triton's HTTP server does."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nann.python_backend.server.hidden_key import hidden_key

READER = """
import errno, json, os, socket, sys

listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
while True:
    connection, _ = listener.accept()
    size, read, dropped = connection.recv(1)[0] + 1, 0, False
    while True:
        try:
            count = os.readv(connection.fileno(), [bytearray(size), bytearray(size)])
        except BlockingIOError:
            dropped = True
            continue
        if count == 0:
            break
        read += count
    print(json.dumps({"read": read, "dropped": dropped}), flush=True)
    connection.close()
"""
KEY = "thekey"


class Reader:
    """The process; a request that it refuses is not seen by its program."""

    def __init__(self, process: subprocess.Popen) -> None:
        self._process = process
        self._port = int(process.stdout.readline())

    def send(self, data: bytes, piece: int = 255) -> tuple[bool, bytes]:
        """Sends bytes, which are read in pieces of `piece`; returns whether all were passed on, and the answer."""
        with socket.create_connection(("127.0.0.1", self._port), timeout=20) as connection:
            connection.sendall(bytes([piece]) + data)
            connection.shutdown(socket.SHUT_WR)
            answer = b"".join(iter(lambda: connection.recv(1 << 16), b""))
        seen = json.loads(self._process.stdout.readline())
        assert seen["dropped"] == bool(answer)
        assert answer or seen["read"] == len(data)
        return not answer, answer


@pytest.fixture(scope="module")
def reader():
    with hidden_key(KEY) as key:
        command = [sys.executable, "-c", READER, key.placeholder]
        environment = key.environment(os.environ)
        process = subprocess.Popen(command, env=environment, pass_fds=[key.pipe], stdout=subprocess.PIPE, text=True)
    with process:
        yield Reader(process)
        process.kill()


def request(body: bytes, *headers: str, target: str = "/v2/models/nann/infer", length: int | None = None) -> bytes:
    lines = (f"POST {target} HTTP/1.1", f"Content-Length: {len(body) if length is None else length}", *headers)
    return "\r\n".join((*lines, "", "")).encode() + body


def nested(depth: int) -> bytes:
    return b"[" * depth + b"]" * depth


GOOD = [
    request(b'{"inputs": []}'),
    request(b"") + request(nested(32)),
    request(b'{"text": "' + b"[" * 500 + b'\\"' + b"{" * 500 + b'"}'),
    request(b"[1]" + b"[" * 500, "Inference-Header-Content-Length: 3"),
    request(b"[" * 500, "inference-header-content-length: 0"),
    request(b"[]", "Content-Encoding: identity", "Expect: 100-continue"),
    b"\r\nGET /v2/health/ready HTTP/1.1\r\nHost: x\r\n\r\n",
    request(b"x" * 20_000),
]
BAD = [
    (request(nested(33)), "nested more than 32 levels"),
    (request(b'{"a":' * 40), "nested more than 32 levels"),
    (request(b'"[" ' + nested(33)), "nested more than 32 levels"),
    (request(b"[]") + request(nested(33)), "nested more than 32 levels"),
    (
        request(nested(40), "Inference-Header-Content-Length: 0", target="/v2/models/nann/generate"),
        "nested more than 32 levels",
    ),
    (request(nested(40), "Inference-Header-Content-Length: 0", target="/v2/logging?/infer"), "nested more than 32"),
    (request(b"x", "Content-Encoding: gzip"), "the body is compressed"),
    (request(b"x", "content-encoding:deflate"), "the body is compressed"),
    (request(b"", "Transfer-Encoding: chunked"), "send it with a Content-Length"),
    (request(b"", length=(16 << 20) + 1), "the body exceeds 16 MiB"),
    (request(b"", "Content-Length: 5"), "not plain HTTP/1.1"),
    (request(b"", "Inference-Header-Content-Length: 1"), "not plain HTTP/1.1"),
    (request(b"x", "Inference-Header-Content-Length: -1"), "not plain HTTP/1.1"),
    (request(b"x", "a: b\n"), "not plain HTTP/1.1"),
    (request(b"x", "a: b", " folded: c"), "not plain HTTP/1.1"),
    (request(b"x", "Content-Encoding : gzip"), "not plain HTTP/1.1"),
    (request(b"x", "nothing"), "not plain HTTP/1.1"),
    (request(b"").replace(b"\r\n\r\n", b"\r\n\n") + b"[" * 100, "not plain HTTP/1.1"),
    (request(b"").replace(b"\r\n\r\n", b"\r\r\n") + b"[" * 100, "not plain HTTP/1.1"),
    (request(b"", "a: " + "b" * (64 << 10)), "the head of the request exceeds 64 KiB"),
]


@pytest.mark.parametrize("piece", [0, 6, 255])
def test_good_requests_pass_unchanged(reader, piece):
    for data in (*GOOD, b"".join(GOOD)):
        assert reader.send(data, piece) == (True, b"")


@pytest.mark.parametrize("piece", [0, 255])
@pytest.mark.parametrize(("data", "why"), BAD, ids=lambda value: value if isinstance(value, str) else "")
def test_bad_requests_are_refused_with_the_reason(reader, data, why, piece):
    passed, answer = reader.send(data, piece)
    head, body = answer.split(b"\r\n\r\n")
    assert not passed
    assert b"Connection: close" in head
    assert why in json.loads(body)["error"]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    value=st.recursive(
        st.none() | st.integers() | st.text(st.characters(codec="utf-8")),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
        max_leaves=30,
    ),
    around=st.integers(0, 40),
    piece=st.integers(0, 255),
    plain=st.booleans(),
)
def test_json_passes_up_to_the_depth_and_no_deeper(reader, value, around, piece, plain):
    for _ in range(around):
        value = [value]
    body = json.dumps(value, ensure_ascii=plain).encode()
    assert reader.send(request(body), piece)[0] == (depth_of(value) <= 32)


def depth_of(value: object) -> int:
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if inside is None else 1 + max(map(depth_of, inside), default=0)
