"""Random requests to the live server: raw bytes, wrong tensors, random parameters. It still answers good ones."""

from __future__ import annotations

import contextlib
import http.client
import json
import random
import socket

import grpc
import numpy as np
import pytest
from support.live_bundle import item_ids
from support.reference import OfflineEnsemble
from tritonclient.grpc import service_pb2, service_pb2_grpc

from nann.clients import RetrievalClient
from nann.search_params import REQUEST_PARAMETERS

pytestmark = pytest.mark.triton

REQUESTS = 400
"""Of each kind."""
USER = item_ids()[20:26]
INFER = "/v2/models/nann/infer"
DTYPES = ("INT64", "INT32", "FP32", "BYTES", "UINT8", "BOOL", "nonsense", "")
HUGE = (2**31, 2**62, 10**12, -1, 0)
LARGE = (10**6, -1, 0)
"""For shapes in JSON: Triton 2.51 allocates what the shape says before the data; 2**31 takes the server down."""


@pytest.fixture
def still_right(server, bundle):
    """Compares the answer to a good request, over both protocols, with the offline search; the process is the same."""
    items, scores, _ = OfflineEnsemble(bundle).retrieve(USER.tolist())
    pid = server.pid
    with RetrievalClient(server.grpc_url, "grpc", 30) as first, RetrievalClient(server.http_url, "http", 30) as second:

        def ask() -> None:
            for client in (first, second):
                result = client.retrieve(USER)
                np.testing.assert_array_equal(result.item_ids[0], items)
                np.testing.assert_allclose(result.scores[0], scores, rtol=1e-4, atol=1e-5)
            assert server.pid == pid

        yield ask


def value(draw: random.Random, depth: int = 2):
    """Any JSON value."""
    simple = [
        None,
        True,
        draw.randint(-5, 1200),
        draw.choice(HUGE),
        1e308,
        -0.5,
        "",
        "ef",
        "1,2,3",
        "x" * draw.choice([1, 300]),
    ]
    if depth == 0 or draw.random() < 0.7:
        return draw.choice(simple)
    inner = [value(draw, depth - 1) for _ in range(draw.randint(0, 3))]
    return inner if draw.random() < 0.5 else {str(key): part for key, part in enumerate(inner)}


def json_request(draw: random.Random) -> bytes:
    """A JSON request in which any part may be wrong."""
    ids = draw.choice([[1060, 1063], [], [1.5], ["a"], [[1060]], [None], [10**30], list(range(1000, 1600))])
    tensor = {
        "name": draw.choice(["behavior_item_ids"] * 5 + ["user_profile", "", "items"]),
        "datatype": draw.choice(("INT64",) * 6 + DTYPES),
        "shape": draw.choice(
            [[1, len(ids)], [1, len(ids)], [len(ids)], [1], [], [1, draw.choice(LARGE)], [draw.choice(LARGE), 2]]
        ),
        "data": ids,
    }
    body = {"inputs": [tensor] * draw.choice([1, 1, 1, 0, 2])}
    if draw.random() < 0.7:
        body["parameters"] = {draw.choice(list(REQUEST_PARAMETERS)): value(draw) for _ in range(draw.randint(1, 3))}
    if draw.random() < 0.2:
        body[draw.choice(["outputs", "id", "parameters", "inputs"])] = value(draw)
    text = json.dumps(body).encode()
    return text[: draw.randint(0, len(text))] if draw.random() < 0.1 else text


def post(server, body: bytes, headers: dict[str, str]) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(server.http_url, timeout=30)
    with contextlib.closing(connection):
        connection.request("POST", INFER, body, headers)
        response = connection.getresponse()
        return response.status, response.read()


def tritons_own(status: int, body: bytes) -> bool:
    """Triton itself answers 500 to much invalid JSON; such a request never reaches our models."""
    return status == 500 and b"internal error: " not in body and b"scorer" not in body


def test_random_json_over_http(server, still_right):
    draw, statuses = random.Random(11), set()
    for number in range(REQUESTS):
        status, body = post(server, json_request(draw), {})
        statuses.add(status)
        assert status in (200, 400) or tritons_own(status, body), body
        assert b"Traceback" not in body
        if number % 50 == 0:
            still_right()
    assert {200, 400} <= statuses
    still_right()


def test_random_bytes_and_binary_sizes_over_http(server, still_right):
    draw = random.Random(12)
    for number in range(REQUESTS):
        head = json_request(draw) if number % 2 else draw.randbytes(draw.randint(0, 200))
        length = draw.choice([len(head), 0, len(head) + 1, 2**63, -1, "x", draw.randint(0, 300)])
        body = head + draw.randbytes(draw.choice([0, 8, 16, 100]))
        status, words = post(server, body, {"Inference-Header-Content-Length": str(length)})
        assert status in (200, 400) or tritons_own(status, words), words
        if number % 50 == 0:
            still_right()
    still_right()


def test_random_bytes_on_the_sockets(server, still_right):
    """Bytes that are neither HTTP nor gRPC."""
    draw = random.Random(13)
    for number in range(100):
        port = server.options.grpc_port if number % 2 else server.options.http_port
        start = draw.choice(
            [b"", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"POST /v2/models/nann/infer HTTP/1.1\r\n", b"GET "]
        )
        with socket.create_connection(("127.0.0.1", port), timeout=10) as connection, contextlib.suppress(OSError):
            connection.sendall(start + draw.randbytes(draw.randint(0, 2000)))
        if number % 25 == 0:
            still_right()
    still_right()


def grpc_request(draw: random.Random) -> service_pb2.ModelInferRequest:
    """A protobuf request in which any field may be wrong."""
    request = service_pb2.ModelInferRequest(model_name="nann")
    for _ in range(draw.choice([1, 1, 1, 0, 2])):
        tensor = request.inputs.add()
        tensor.name = draw.choice(["behavior_item_ids"] * 5 + ["user_profile", ""])
        tensor.datatype = draw.choice(("INT64",) * 6 + DTYPES)
        count = draw.randint(0, 6)
        tensor.shape.extend(
            draw.choice([[1, count], [1, count], [count], [], [1, draw.choice(HUGE)], [draw.choice(HUGE), 2]])
        )
        if draw.random() < 0.7:
            size = draw.choice([8 * count, 8 * count, 8 * count + 1, 0, 100_000])
            request.raw_input_contents.append(draw.randbytes(size))
        else:
            tensor.contents.int64_contents.extend(draw.randint(-(2**63), 2**63 - 1) for _ in range(count))
    for _ in range(draw.randint(0, 3)):
        parameter = request.parameters[draw.choice((*REQUEST_PARAMETERS, "priority", "timeout", "sequence_id", "x"))]
        kind = draw.choice(["int64_param", "string_param", "bool_param", "double_param"])
        values = {
            "bool_param": True,
            "double_param": float("nan"),
            "string_param": draw.choice(["1,2,3", "\0", "9" * 40]),
        }
        setattr(parameter, kind, values.get(kind, draw.choice([5, *HUGE]) % 2**63))
    return request


def test_random_messages_over_grpc(server, still_right):
    draw, codes, words = random.Random(14), set(), []
    with grpc.insecure_channel(server.grpc_url) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        raw = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        for number in range(REQUESTS):
            try:
                if number % 4 == 0:
                    raw(draw.randbytes(draw.randint(0, 300)), timeout=30)
                else:
                    stub.ModelInfer(grpc_request(draw), timeout=30)
                codes.add("OK")
            except grpc.RpcError as error:
                codes.add(error.code().name)
                words.append(error.details())
            if number % 50 == 0:
                still_right()
    assert {"OK", "INVALID_ARGUMENT"} <= codes
    assert "Traceback" not in " ".join(words)
    assert not codes & {"UNAVAILABLE", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED"}, codes
    still_right()


@pytest.mark.parametrize("name", ["ef", "top_k", "no_such_parameter" + "x" * 100_000])
def test_a_huge_parameter_is_refused_in_few_words(server, still_right, name):
    from tritonclient.grpc import InferenceServerClient, InferInput
    from tritonclient.utils import InferenceServerException

    tensor = InferInput("behavior_item_ids", [1, 6], "INT64")
    tensor.set_data_from_numpy(USER[None])
    with contextlib.closing(InferenceServerClient(server.grpc_url)) as client:
        with pytest.raises(InferenceServerException) as caught:
            client.infer("nann", [tensor], parameters={name: "9" * 100_000}, client_timeout=30)
        assert caught.value.status() == "StatusCode.INVALID_ARGUMENT", caught.value
        assert len(caught.value.message()) < 3000
    still_right()
