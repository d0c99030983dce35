"""Converts between Triton's requests and responses and our NumPy arrays and errors."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import triton_python_backend_utils as pb_utils

from nann.errors import NannError, RequestError, ScorerError, ScorerUnavailable, SearchStopped, ServerUnavailable
from nann.signature import Tensors, TensorSpec

_NOT_CALLED = "Model {} - Error when running inference"
"""Start of the Python backend's message for a BLS call that reached no model; its error code says only INTERNAL."""
_LONGEST_MESSAGE = 2000


def read_tensor(request: Any, spec: TensorSpec) -> npt.NDArray[Any]:
    """Reads one input of Triton's `InferenceRequest`: an array of `spec.dtype`, batch dimension first.

    Raises:
        RequestError: naming the tensor, if it is missing or has another dtype.
    """
    array = read_optional_tensor(request, spec)
    if array is None:
        raise RequestError(f"{spec.name} is missing; expected {spec.triton_dtype} of shape [batch, {_shape(spec)}]")
    return array


def read_optional_tensor(request: Any, spec: TensorSpec) -> npt.NDArray[Any] | None:
    """Reads one input like `read_tensor`; None if the request does not have it.

    Raises:
        RequestError: naming the tensor, if it has another dtype.
    """
    tensor = pb_utils.get_input_tensor_by_name(request, spec.name)
    if tensor is None:
        return None
    array: npt.NDArray[Any] = tensor.as_numpy()
    if array.dtype != spec.dtype:
        raise RequestError(f"{spec.name} has dtype {array.dtype}; expected {spec.triton_dtype}")
    return array


def read_parameters(request: Any) -> str:
    """Reads the request's parameters, as JSON.

    Raises:
        RequestError: if they are not UTF-8. JSON over HTTP may hold any bytes.
    """
    try:
        parameters: str = request.parameters()
    except UnicodeDecodeError as error:
        raise RequestError(
            f"the request parameters hold the byte 0x{error.object[error.start]:02x}; expected text in UTF-8"
        ) from error
    return parameters


def check_not_empty(spec: TensorSpec, shape: Sequence[int]) -> None:
    """Refuses a tensor without elements, for models that compute with all of them.

    Raises:
        RequestError: naming the tensor.
    """
    if 0 in shape:
        raise RequestError(f"{spec.name} has shape {list(shape)}; expected at least one element in each dimension")


def make_tensor(spec: TensorSpec, array: npt.NDArray[Any]) -> Any:
    """Makes Triton's tensor of an array, contiguous and in the spec's dtype."""
    return pb_utils.Tensor(spec.name, np.ascontiguousarray(array, spec.dtype))


def make_response(tensors: Tensors) -> Any:
    """Triton's `InferenceResponse` with these outputs."""
    return pb_utils.InferenceResponse(output_tensors=[make_tensor(spec, array) for spec, array in tensors.items()])


def error_response(error: Exception) -> Any:
    """Triton's `InferenceResponse` for a failure: our message and the matching status, never a traceback.

    A `RequestError` is the caller's fault (INVALID_ARGUMENT). A stopped search is CANCELLED, since Triton has no
    DEADLINE_EXCEEDED. What another server did not do for now is UNAVAILABLE. All other errors are ours (INTERNAL);
    unexpected ones are logged with their traceback.
    """
    # gRPC carries the message in a header of limited size. A message that quotes a huge parameter would exceed it.
    message = str(error)[:_LONGEST_MESSAGE]
    if isinstance(error, RequestError):
        return pb_utils.InferenceResponse(error=pb_utils.TritonError(message, pb_utils.TritonError.INVALID_ARG))
    if isinstance(error, SearchStopped):
        return pb_utils.InferenceResponse(error=pb_utils.TritonError(message, pb_utils.TritonError.CANCELLED))
    if isinstance(error, ServerUnavailable):
        return pb_utils.InferenceResponse(error=pb_utils.TritonError(message, pb_utils.TritonError.UNAVAILABLE))
    if not isinstance(error, NannError):
        message = f"internal error: {type(error).__name__}: {message}"
        pb_utils.Logger.log_error("".join(traceback.format_exception(error)))
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(message, pb_utils.TritonError.INTERNAL))


def log_warning(message: str) -> None:
    """Writes a line to the server's log."""
    pb_utils.Logger.log_warn(message)


def log_info(message: str) -> None:
    """Writes a line to the server's log."""
    pb_utils.Logger.log_info(message)


def answer_each(requests: Sequence[Any], answer: Callable[[Any], Tensors]) -> list[Any]:
    """Answers requests one by one. An error that `answer` raises fails only its own request."""
    return [_answer(request, answer) for request in requests]


def _answer(request: Any, answer: Callable[[Any], Tensors]) -> Any:
    try:
        return make_response(answer(request))
    except Exception as error:  # a Python model must never raise out of execute()
        return error_response(error)


def call_model(
    model_name: str, model_version: int, inputs: Sequence[Any], output: TensorSpec, trace: Any = None
) -> npt.NDArray[Any]:
    """Calls another model of the server (BLS) and waits for its answer.

    Args:
        model_name: the model.
        model_version: its version. It is always named, so that two versions never answer the same request.
        inputs: Triton's tensors.
        output: the requested output.
        trace: Triton's trace that the call belongs to; None: it is not traced.

    Returns:
        The output in CPU memory, whichever device computed it.

    Raises:
        ScorerUnavailable: if the call did not reach the model: it is not loaded, or its queue is full.
        ScorerError: with the model's message, if the call failed or returned no such output.
    """
    request = pb_utils.InferenceRequest(
        model_name=model_name,
        model_version=model_version,
        requested_output_names=[output.name],
        inputs=list(inputs),
        preferred_memory=pb_utils.PreferredMemory(pb_utils.TRITONSERVER_MEMORY_CPU, 0),
        **({} if trace is None else {"trace": trace}),
    )
    response = request.exec()
    if response.has_error():
        message = response.error().message()
        kind = ScorerUnavailable if message.startswith(_NOT_CALLED.format(model_name)) else ScorerError
        raise kind(f"{model_name} version {model_version} failed: {message}")
    tensor = pb_utils.get_output_tensor_by_name(response, output.name)
    if tensor is None:
        raise ScorerError(f"{model_name} version {model_version} returned no {output.name}")
    array: npt.NDArray[Any] = tensor.as_numpy()
    return array


def _shape(spec: TensorSpec) -> str:
    return ", ".join("any" if size < 0 else str(size) for size in spec.shape)
