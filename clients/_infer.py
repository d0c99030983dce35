"""The call that tritonclient's gRPC and HTTP clients share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy.typing as npt

from nann.signature import REQUEST_KEY

from ._codec import InferRequest


def infer(triton: Any, client: Any, request: InferRequest, **options: Any) -> Mapping[str, npt.NDArray[Any]]:
    """Sends a request, waits for its answer, and returns array by output name.

    Args:
        triton: `tritonclient.grpc` or `tritonclient.http`.
        client: an `InferenceServerClient` of that module.
        request: to send.
        options: more arguments of the client's `infer`.
    """
    inputs = []
    for spec, array in request.inputs.items():
        tensor = triton.InferInput(spec.name, list(array.shape), spec.triton_dtype)
        tensor.set_data_from_numpy(array)
        inputs.append(tensor)
    result = client.infer(
        request.model,
        inputs,
        outputs=[triton.InferRequestedOutput(name) for name in request.outputs],
        request_id=request.request_id,
        priority=request.priority,
        parameters={**request.parameters, REQUEST_KEY.name: request.key},
        **options,
    )
    return {name: result.as_numpy(name) for name in request.outputs}
