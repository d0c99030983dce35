"""KServe V2 over HTTP, with binary tensors."""

from __future__ import annotations

from collections.abc import Mapping
from http.client import HTTPException
from typing import Any

import numpy.typing as npt
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

from nann.signature import ENSEMBLE

from ._codec import InferRequest
from ._errors import translated
from ._infer import infer_arguments, output_arrays
from ._tls import Tls


class HttpTransport:
    """One connection that is kept open, for use in one thread (tritonclient's HTTP client runs on gevent).

    Args:
        url: `host:port`.
        timeout_s: for the connection and each answer.
        tls: None: unencrypted.
    """

    def __init__(self, url: str, timeout_s: float, tls: Tls | None = None) -> None:
        self._url = url
        self._timeout_s = timeout_s
        self._tls = tls
        self._client = self._connect()

    def infer(self, request: InferRequest, timeout_s: float) -> Mapping[str, npt.NDArray[Any]]:
        """See `Transport.infer`."""
        with translated(self._url, timeout_s):
            result = self._client_with(timeout_s).infer(**infer_arguments(triton, request))
            return output_arrays(request, result)

    def is_ready(self, timeout_s: float) -> bool:
        """See `Transport.is_ready`."""
        try:
            return bool(self._client_with(timeout_s).is_server_ready())
        except (InferenceServerException, OSError, HTTPException):
            return False

    def settings(self, timeout_s: float) -> Mapping[str, str]:
        """See `Transport.settings`."""
        with translated(self._url, timeout_s):
            return settings_of(self._client_with(timeout_s).get_model_config(ENSEMBLE.name))

    def close(self) -> None:
        """See `Transport.close`."""
        self._client.close()

    def _client_with(self, timeout_s: float) -> triton.InferenceServerClient:
        # tritonclient fixes the timeout with the connection: another timeout needs another connection.
        if timeout_s != self._timeout_s:
            self._client.close()
            self._timeout_s = timeout_s
            self._client = self._connect()
        return self._client

    def _connect(self) -> triton.InferenceServerClient:
        options = self._tls.http_options() if self._tls is not None else {}
        limit_s = self._timeout_s
        return triton.InferenceServerClient(self._url, connection_timeout=limit_s, network_timeout=limit_s, **options)


def settings_of(config: Mapping[str, Any]) -> Mapping[str, str]:
    """The parameters in a model's configuration, as JSON has it."""
    return {name: each["string_value"] for name, each in config.get("parameters", {}).items()}
