"""KServe V2 over gRPC."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy.typing as npt
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from ._codec import InferRequest
from ._errors import translate
from ._infer import infer
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

    def infer(self, request: InferRequest, timeout_s: float) -> Mapping[str, npt.NDArray[Any]]:
        """See `Transport.infer`."""
        try:
            return infer(triton, self._client, request, client_timeout=timeout_s)
        except InferenceServerException as error:
            raise translate(error, self._url, timeout_s) from error

    def is_ready(self, timeout_s: float) -> bool:
        """See `Transport.is_ready`."""
        try:
            return bool(self._client.is_server_ready(client_timeout=timeout_s))
        except InferenceServerException:
            return False

    def close(self) -> None:
        """See `Transport.close`."""
        self._client.close()
