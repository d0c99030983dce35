"""The call that all of tritonclient's clients share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy.typing as npt

from nann.signature import REQUEST_KEY

from ._codec import InferRequest


def infer_arguments(triton: Any, request: InferRequest) -> dict[str, Any]:
    """A request as arguments of `infer`; `triton` is `tritonclient.grpc` or `tritonclient.http`."""
    inputs = []
    for spec, array in request.inputs.items():
        tensor = triton.InferInput(spec.name, list(array.shape), spec.triton_dtype)
        tensor.set_data_from_numpy(array)
        inputs.append(tensor)
    return {
        "model_name": request.model,
        "inputs": inputs,
        "outputs": [triton.InferRequestedOutput(name) for name in request.outputs],
        "request_id": request.request_id,
        "priority": request.priority,
        "parameters": {**request.parameters, REQUEST_KEY.name: request.key},
    }


def output_arrays(request: InferRequest, result: Any) -> Mapping[str, npt.NDArray[Any]]:
    """Array by output name, of what `infer` returned."""
    return {name: result.as_numpy(name) for name in request.outputs}
