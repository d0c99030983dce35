"""Requests that took Triton 2.51 or a Python process down: each is refused, and the processes live on."""

from __future__ import annotations

import gzip
import json
import urllib.error
import urllib.request

import grpc
import pytest
from support.live_bundle import item_ids
from tritonclient.grpc import service_pb2, service_pb2_grpc

from nann.clients import RetrievalClient
from nann.python_backend.server.processes import DEAD, child_processes

pytestmark = pytest.mark.triton

USER = item_ids()[20:25].tolist()
INNER = ("feature_transform", "user_encoder", "beam_retrieval", "scorer")
SHAPES = ([4, 2**62], [1, 2**61], [2, 2**60], [2**61, 1], [2**31, 2**31], [1, 2**31], [16, 10**9], [0, 2**62])


@pytest.fixture
def living(server):
    """Checks after the test that the server has the processes of before, and answers over both protocols."""
    before = (server.pid, set(child_processes(server.pid)))
    yield
    for url, protocol in ((server.grpc_url, "grpc"), (server.http_url, "http")):
        with RetrievalClient(url, protocol, timeout_s=20) as client:
            assert client.retrieve(USER).item_ids.shape == (1, 20)
    assert (server.pid, set(child_processes(server.pid))) == before
    assert DEAD not in child_processes(server.pid).values()


def post(server, body: bytes, path: str = "/v2/models/nann/infer", **headers: str) -> tuple[int, str]:
    """Status and message of a refused request over HTTP."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    request = urllib.request.Request(f"http://{server.http_url}{path}", body, named)
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request, timeout=20)
    return caught.value.code, json.load(caught.value)["error"]


def call(server, request: service_pb2.ModelInferRequest, compression=None) -> tuple[str, str]:
    """Status and message of a refused request over gRPC."""
    with (
        grpc.insecure_channel(server.grpc_url, compression=compression) as channel,
        pytest.raises(grpc.RpcError) as caught,
    ):
        service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(request, timeout=20)
    return caught.value.code().name, caught.value.details()


@pytest.mark.usefixtures("living")
@pytest.mark.parametrize("tensor", ["behavior_item_ids", "user_profile"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_shape_that_overflows_or_is_huge(server, tensor, shape):
    tensors = [{"name": "behavior_item_ids", "shape": [4, 1]}, {"name": tensor, "shape": shape}]
    words = f"{tensor} has shape {shape}; expected no size below 0, and at most 4194304 elements"
    for _ in range(3):
        request = service_pb2.ModelInferRequest(model_name="nann", raw_input_contents=[bytes(32), b""])
        for one in tensors:
            request.inputs.add(datatype="INT64", **one)
        assert call(server, request) == ("INVALID_ARGUMENT", words)
        described = [{**one, "datatype": "INT64", "data": [0] * 4} for one in tensors]
        assert post(server, json.dumps({"inputs": described}).encode()) == (400, words)


@pytest.mark.usefixtures("living")
@pytest.mark.parametrize(
    "path", ["/v2/models/nann/infer", "/v2/models/nann/generate", "/v2/logging", "/v2/models/nann/trace/setting"]
)
@pytest.mark.parametrize("body", [b"[" * 100_000, b'{"a":' * 100_000, b'{"inputs":' + b"[" * 5_000_000], ids=len)
def test_deep_json(server, path, body):
    for headers in ({}, {"Inference_Header_Content_Length": "0"} if path != "/v2/models/nann/infer" else {}):
        assert post(server, body, path, **headers) == (400, "the JSON is nested more than 32 levels deep")


@pytest.mark.usefixtures("living")
def test_large_bodies(server):
    bomb = gzip.compress(bytes(50_000_000))
    assert post(server, bomb, Content_Encoding="gzip") == (415, "the body is compressed; send it as it is")
    assert post(server, b" " * (17 << 20)) == (413, "the body exceeds 16 MiB")


@pytest.mark.usefixtures("living")
def test_a_message_that_unpacks_to_much_more(server):
    request = service_pb2.ModelInferRequest(model_name="nann", raw_input_contents=[bytes(50_000_000)])
    request.inputs.add(name="behavior_item_ids", datatype="INT64", shape=[1, 1])
    status, words = call(server, request, grpc.Compression.Gzip)
    assert (status, "decompress" in words) == ("INTERNAL", True), words


@pytest.mark.usefixtures("living")
@pytest.mark.parametrize("model", INNER)
def test_clients_reach_the_ensemble_alone(server, model):
    words = f"model {model} can't be called from outside; send requests to nann"
    tensor = {"name": "behavior_item_ids", "datatype": "INT64", "shape": [1, 1]}
    body = json.dumps({"inputs": [{**tensor, "data": [1]}]}).encode()
    for path in (f"/v2/models/{model}/infer", f"/v2/models/{model}/versions/1/infer"):
        assert post(server, body, path, nann_admin_key="wrong") == (400, words)
    request = service_pb2.ModelInferRequest(model_name=model, raw_input_contents=[bytes(8)])
    request.inputs.add(**tensor)
    assert call(server, request) == ("INVALID_ARGUMENT", words)


@pytest.mark.usefixtures("living")
@pytest.mark.parametrize("parameters", [b'{"on_deadline":"\xff"}', b'{"\xff":"x"}', b'{"top_k":"\xc3\x28"}'])
def test_parameters_that_are_no_utf_8(server, parameters):
    log = server.options.log_file
    before = log.stat().st_size
    tensor = b'{"name":"behavior_item_ids","datatype":"INT64","shape":[1,1],"data":[1000]}'
    status, words = post(server, b'{"parameters":' + parameters + b',"inputs":[' + tensor + b"]}")
    assert (status, "; expected text in UTF-8" in words) == (400, True), words
    assert "Traceback" not in log.read_text()[before:]
