"""Servers that answer what no server of nann answers, over both protocols."""

import asyncio
import contextlib
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer

import grpc
import numpy as np
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

from nann.clients import AsyncRetrievalClient, RetrievalClient
from nann.errors import ConfigError, NannError, ServerError


@pytest.fixture
def http_server():
    """Answers every POST with `content`."""

    class Handler(BaseHTTPRequestHandler):
        content = b""

        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.send_header("Content-Length", str(len(self.content)))
            self.end_headers()
            self.wfile.write(self.content)

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    "content", [b"", b"not JSON", b"[]", b'{"outputs": 5}', b'{"outputs": [{}]}', b'{"outputs": []}']
)
def test_over_http(http_server, content):
    http_server.RequestHandlerClass.content = content
    with (
        RetrievalClient(f"127.0.0.1:{http_server.server_port}", "http", timeout_s=5) as client,
        pytest.raises(ServerError, match=r"no answer could be read|returned nothing as item_ids"),
    ):
        client.retrieve([1])


def test_over_http_with_data_that_does_not_fit_its_shape(http_server):
    tensor = {"name": "item_ids", "datatype": "INT64", "shape": [1, 3], "data": [1, 2]}
    http_server.RequestHandlerClass.content = json.dumps({"outputs": [tensor]}).encode()
    with (
        RetrievalClient(f"127.0.0.1:{http_server.server_port}", "http", timeout_s=5) as client,
        pytest.raises(ServerError, match=r"no answer could be read: .*is it a server of nann at that address"),
    ):
        client.retrieve([1])


def test_over_grpc_with_data_that_does_not_fit_its_shape():
    class Service(service_pb2_grpc.GRPCInferenceServiceServicer):
        def ModelInfer(self, request, context):  # noqa: N802 - the protocol's name
            answer = service_pb2.ModelInferResponse(model_name=request.model_name)
            answer.outputs.add(name="item_ids", datatype="INT64", shape=[1, 3])
            answer.raw_output_contents.append(np.arange(2).tobytes())
            return answer

    server = grpc.server(ThreadPoolExecutor(1))
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(Service(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with (
        RetrievalClient(f"127.0.0.1:{port}", timeout_s=5) as client,
        pytest.raises(ServerError, match=r"no answer could be read: .*is it a server of nann at that address"),
    ):
        client.retrieve([1])
    server.stop(None)


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_a_client_that_is_closed(http_server, protocol):
    url = f"127.0.0.1:{http_server.server_port}"
    client = RetrievalClient(url, protocol, timeout_s=2)
    client.close()
    with pytest.raises(ConfigError, match=r"the client can't be used: .*closed.*; expected one that is open"):
        client.retrieve([1])

    async def make() -> AsyncRetrievalClient:
        made = AsyncRetrievalClient(url, protocol, timeout_s=2)
        with contextlib.suppress(NannError):
            await made.retrieve([1])
        return made

    async def ask_closed() -> None:
        made = await make()
        await made.close()
        await made.retrieve([1])

    with pytest.raises(ConfigError, match=r"the client can't be used: .*closed"):
        asyncio.run(ask_closed())
