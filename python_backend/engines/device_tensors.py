"""Converts between Triton's tensors and torch tensors without a copy, on any device (DLPack)."""

from __future__ import annotations

from typing import Any

import triton_python_backend_utils as pb_utils
from torch import Tensor
from torch.utils.dlpack import from_dlpack

from nann.errors import RequestError
from nann.signature import TensorSpec

from .onnx_torch import torch_dtype


def read_torch(request: Any, spec: TensorSpec) -> Tensor:
    """One input of a request as a torch tensor on the device that holds it.

    Raises:
        RequestError: naming the tensor, if it is missing or has another dtype.
    """
    tensor = pb_utils.get_input_tensor_by_name(request, spec.name)
    if tensor is None:
        raise RequestError(f"{spec.name} is missing; expected {spec.triton_dtype}")
    array: Tensor = from_dlpack(tensor.to_dlpack())
    if array.dtype != torch_dtype(spec):
        raise RequestError(f"{spec.name} has dtype {array.dtype}; expected {spec.triton_dtype}")
    return array


def torch_tensor(spec: TensorSpec, value: Tensor) -> Any:
    """Triton's tensor over the memory of a torch tensor, which nothing else may use.

    Triton gets the memory through the tensor's `__dlpack__`, and so waits for the work that torch has queued.
    """
    return pb_utils.Tensor.from_dlpack(spec.name, value.contiguous())
