"""KServe V2 over gRPC."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy.typing as npt
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from nann.signature import ENSEMBLE

from ._codec import InferRequest
from ._errors import translated
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
        with translated(self._url, timeout_s):
            return infer(triton, self._client, request, client_timeout=timeout_s)

    def is_ready(self, timeout_s: float) -> bool:
        """See `Transport.is_ready`."""
        try:
            return bool(self._client.is_server_ready(client_timeout=timeout_s))
        except InferenceServerException:
            return False

    def settings(self, timeout_s: float) -> Mapping[str, str]:
        """See `Transport.settings`."""
        with translated(self._url, timeout_s):
            answer = self._client.get_model_config(ENSEMBLE.name, client_timeout=timeout_s)
            return {name: each.string_value for name, each in answer.config.parameters.items()}

    def close(self) -> None:
        """See `Transport.close`."""
        self._client.close()
