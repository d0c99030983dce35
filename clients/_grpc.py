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
from ._infer import infer_arguments, output_arrays
from ._tls import Tls

CHANNEL = [
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),  # gRPC's own, up to two minutes, is longer than most timeouts
    ("grpc.min_reconnect_backoff_ms", 2000),  # which is how long a connection may take to come about
]
"""Options of every channel."""


class GrpcTransport:
    """One channel, usable from several threads.

    Args:
        url: `host:port`.
        tls: None: unencrypted.
    """

    def __init__(self, url: str, tls: Tls | None = None) -> None:
        self._url = url
        self._client = triton.InferenceServerClient(
            url, channel_args=CHANNEL, **(tls.grpc_options() if tls is not None else {})
        )

    def infer(self, request: InferRequest, timeout_s: float) -> Mapping[str, npt.NDArray[Any]]:
        """See `Transport.infer`."""
        with translated(self._url, timeout_s):
            result = self._client.infer(**infer_arguments(triton, request), client_timeout=timeout_s)
            return output_arrays(request, result)

    def is_ready(self, timeout_s: float) -> bool:
        """See `Transport.is_ready`."""
        try:
            return bool(self._client.is_server_ready(client_timeout=timeout_s))
        except InferenceServerException:
            return False

    def settings(self, timeout_s: float) -> Mapping[str, str]:
        """See `Transport.settings`."""
        with translated(self._url, timeout_s):
            return settings_of(self._client.get_model_config(ENSEMBLE.name, client_timeout=timeout_s))

    def close(self) -> None:
        """See `Transport.close`."""
        self._client.close()


def settings_of(answer: Any) -> Mapping[str, str]:
    """The parameters in a ModelConfigResponse."""
    return {name: each.string_value for name, each in answer.config.parameters.items()}
