"""A gRPC server that says what a test tells it to."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

import grpc
import numpy as np
from tritonclient.grpc import service_pb2, service_pb2_grpc


@dataclass
class FakeServer(service_pb2_grpc.GRPCInferenceServiceServicer):
    """Fails with `failures` in turn, then gives every user item 7; keeps the requests.

    Attributes:
        failures: status and message of each.
        requests: what came.
        other_key: answers have the key of another request.
        settings: parameters of the ensemble.
    """

    failures: list[tuple[grpc.StatusCode, str]] = field(default_factory=list)
    requests: list[service_pb2.ModelInferRequest] = field(default_factory=list)
    other_key: bool = False
    settings: dict[str, str] = field(default_factory=lambda: {"bundle": "abc", "item_id_kind": "text"})

    def ModelInfer(self, request, context):  # noqa: N802 - the protocol's name
        self.requests.append(request)
        if self.failures:
            context.abort(*self.failures.pop(0))
        users = request.inputs[0].shape[0]
        key = request.parameters["request_key"].int64_param + self.other_key
        answer = service_pb2.ModelInferResponse(model_name=request.model_name)
        for name, values in (
            ("item_ids", np.array([[7]] * users)),
            ("scores", np.ones((users, 1), np.float32)),
            *((name, np.ones((users, 1), np.int32)) for name in ("unknown_items", "items_scored", "stored_items")),
            ("items_matching", np.array([[9]] * users)),
            ("status", np.zeros((users, 1), np.int32)),
            ("request_key", np.array([[key]] * users)),
        ):
            kind = {"f": "FP32", "i": f"INT{8 * values.itemsize}"}[values.dtype.kind]
            answer.outputs.add(name=name, datatype=kind, shape=[users, 1])
            answer.raw_output_contents.append(values.tobytes())
        return answer

    def ServerReady(self, request, context):  # noqa: N802
        return service_pb2.ServerReadyResponse(ready=True)

    def ModelConfig(self, request, context):  # noqa: N802
        answer = service_pb2.ModelConfigResponse()
        for name, value in self.settings.items():
            answer.config.parameters[name].string_value = value
        return answer


@contextmanager
def running(service: FakeServer, port: int = 0) -> Iterator[str]:
    """The address of the server while it runs."""
    server = grpc.server(ThreadPoolExecutor(4), options=[("grpc.so_reuseport", 0)])
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(service, server)
    port = server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()
