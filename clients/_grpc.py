"""KServe V2 over gRPC."""

from __future__ import annotations

from collections.abc import Mapping

import numpy.typing as npt
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from ._codec import InferRequest
from ._errors import translate
from ._tls import Tls


class GrpcTransport:
    """One channel, usable from several threads.

    Args:
        url: `host:port`.
        tls: None: unencrypted.
    """

    def __init__(self, url: str, tls: Tls | None = None) -> None:
        self._url = url
        self._client = triton.InferenceServerClient(url, **(tls.grpc_options() if tls is not None else {}))

    def infer(self, request: InferRequest, timeout_s: float) -> Mapping[str, npt.NDArray]:
        """See `Transport.infer`."""
        try:
            result = self._client.infer(
                request.model,
                [_input(spec.name, spec.triton_dtype, array) for spec, array in request.inputs.items()],
                outputs=[triton.InferRequestedOutput(name) for name in request.outputs],
                request_id=request.request_id,
                priority=request.priority,
                parameters=dict(request.parameters) or None,
                client_timeout=timeout_s,
            )
        except InferenceServerException as error:
            raise translate(error, self._url, timeout_s) from error
        return {name: result.as_numpy(name) for name in request.outputs}

    def is_ready(self, timeout_s: float) -> bool:
        """See `Transport.is_ready`."""
        try:
            return bool(self._client.is_server_ready(client_timeout=timeout_s))
        except InferenceServerException:
            return False

    def close(self) -> None:
        """See `Transport.close`."""
        self._client.close()


def _input(name: str, dtype: str, array: npt.NDArray) -> triton.InferInput:
    tensor = triton.InferInput(name, list(array.shape), dtype)
    tensor.set_data_from_numpy(array)
    return tensor
