"""A fake of `triton_python_backend_utils`, which exists only inside Triton: the parts that our models use."""

from __future__ import annotations

import enum
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

TRITONSERVER_MEMORY_CPU = 0
SEARCH_PARAMETERS = {
    "max_top_k": "20",
    "max_ef": "25",
    "max_rounds": "30",
    "deadline_ms": "9000",
    "on_deadline": "error",
    "on_scorer_failure": "error",
}
"""Parameters of beam_retrieval; small bounds, so that tests can exceed them."""


def arguments_of(repository: Path, model: str, **parameters: str) -> dict[str, str]:
    """Arguments of a model's `initialize`, as Triton makes them from its config.pbtxt."""
    config = {"name": model, "parameters": {key: {"string_value": value} for key, value in parameters.items()}}
    return {
        "model_name": model,
        "model_version": "1",
        "model_repository": str(repository / model),
        "model_config": json.dumps(config),
        "model_instance_kind": "CPU",
        "model_instance_device_id": "0",
    }


class Tensor:
    def __init__(self, name: str, array: np.ndarray) -> None:
        assert array.flags.c_contiguous
        self._name, self._array = name, array

    def name(self) -> str:
        return self._name

    def as_numpy(self) -> np.ndarray:
        return self._array

    def to_dlpack(self) -> Any:
        return self._array.__dlpack__()

    @staticmethod
    def from_dlpack(name: str, tensor: Any) -> Tensor:
        return Tensor(name, np.from_dlpack(tensor).copy())  # NumPy's view is read-only, Triton's is not


class TritonError:
    INVALID_ARG = "INVALID_ARG"
    INTERNAL = "INTERNAL"
    CANCELLED = "CANCELLED"
    NOT_FOUND = "NOT_FOUND"
    UNAVAILABLE = "UNAVAILABLE"

    def __init__(self, message: str, code: str = INTERNAL) -> None:
        self._message, self._code = message, code

    def message(self) -> str:
        return self._message

    def code(self) -> str:
        return self._code


class InferenceResponse:
    def __init__(self, output_tensors: list[Tensor] | None = None, error: TritonError | None = None) -> None:
        self._tensors, self._error = output_tensors or [], error

    def output_tensors(self) -> list[Tensor]:
        return self._tensors

    def has_error(self) -> bool:
        return self._error is not None

    def error(self) -> TritonError | None:
        return self._error

    def arrays(self) -> dict[str, np.ndarray]:
        return {tensor.name(): tensor.as_numpy() for tensor in self._tensors}


class Request:
    """A request as Triton passes it to `execute`."""

    def __init__(self, tensors: Mapping[str, np.ndarray], parameters: str = "{}", request_id: str = "") -> None:
        self._tensors = [Tensor(name, np.ascontiguousarray(array)) for name, array in tensors.items()]
        self._parameters = parameters
        self._id = request_id

    def inputs(self) -> list[Tensor]:
        return self._tensors

    def parameters(self) -> str:
        return self._parameters

    def request_id(self) -> str:
        return self._id


class PreferredMemory:
    def __init__(self, kind: int, device: int) -> None:
        self.kind, self.device = kind, device


class InferenceRequest:
    """A BLS call: answered by `InferenceRequest.answer`, recorded in `InferenceRequest.calls`."""

    answer: Callable[[InferenceRequest], InferenceResponse] = lambda call: InferenceResponse()
    calls: list[InferenceRequest] = []  # noqa: RUF012

    def __init__(self, **arguments: Any) -> None:
        self.arguments = arguments
        self.inputs = {tensor.name(): tensor.as_numpy() for tensor in arguments["inputs"]}

    def exec(self) -> InferenceResponse:
        type(self).calls.append(self)
        return type(self).answer(self)


class Logger:
    errors: list[str] = []  # noqa: RUF012
    warnings: list[str] = []  # noqa: RUF012

    @classmethod
    def log_warn(cls, message: str) -> None:
        cls.warnings.append(message)

    @classmethod
    def log_error(cls, message: str) -> None:
        cls.errors.append(message)

    @classmethod
    def log_info(cls, message: str) -> None:
        pass


class MetricFamily:
    class Kind(enum.Enum):
        COUNTER = "counter"
        GAUGE = "gauge"

    COUNTER, GAUGE = Kind

    def __init__(self, name: str, description: str, kind: Kind) -> None:
        self.name = name

    def Metric(self, labels: Mapping[str, str]) -> Metric:  # noqa: N802
        return Metric(self.name)


class Metric:
    """All metrics with the same name share one value in `Metric.values`, whatever their labels."""

    values: dict[str, float] = {}  # noqa: RUF012

    def __init__(self, name: str) -> None:
        self._name = name
        self.values[name] = 0

    def increment(self, by: float) -> None:
        self.values[self._name] += by

    def set(self, value: float) -> None:
        self.values[self._name] = value


def get_input_tensor_by_name(request: Request, name: str) -> Tensor | None:
    return next((tensor for tensor in request.inputs() if tensor.name() == name), None)


def get_output_tensor_by_name(response: InferenceResponse, name: str) -> Tensor | None:
    return next((tensor for tensor in response.output_tensors() if tensor.name() == name), None)
