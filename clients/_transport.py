"""The interface of a transport, and the choice between gRPC and HTTP."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol
from urllib.parse import urlsplit

import numpy.typing as npt

from nann.errors import ConfigError

from ._codec import InferRequest
from ._tls import Tls

PROTOCOLS = ("grpc", "http")


class Transport(Protocol):
    """Sends requests to a server. Tests pass their own."""

    def infer(self, request: InferRequest, timeout_s: float) -> Mapping[str, npt.NDArray[Any]]:
        """Sends `request`, waits for its answer, and returns array by output name.

        Raises:
            RequestError: if the server calls the request invalid.
            RequestTimeout: if no answer came within `timeout_s`, or the request's deadline passed.
            ServerOverloaded: if too many requests wait already.
            ServerUnavailable: if no server answers at the address, or it is not ready.
            ServerError: if the server failed.
        """

    def is_ready(self, timeout_s: float) -> bool:
        """Whether the server answers and all its models are loaded."""

    def settings(self, timeout_s: float) -> Mapping[str, str]:
        """The parameters in the configuration of the served ensemble, by name; raises as `infer` does."""

    def close(self) -> None:
        """Closes the connection."""


def open_transport(url: str, protocol: str, timeout_s: float, tls: Tls | None = None) -> Transport:
    """The transport for `protocol`, encrypted with `tls`.

    Raises:
        ConfigError: if there is no such protocol, or the url has a scheme.
        ModuleNotFoundError: if tritonclient, of the extra `client`, is not installed.
    """
    if protocol not in PROTOCOLS:
        raise ConfigError(f"protocol is {protocol!r}; expected {' or '.join(PROTOCOLS)}")
    if "://" in url or not _is_address(url):
        raise ConfigError(f"url is {url!r}; expected host:port without a scheme, such as 127.0.0.1:8001")
    if protocol == "grpc":
        from ._grpc import GrpcTransport

        return GrpcTransport(url, tls)
    from ._http import HttpTransport

    return HttpTransport(url, timeout_s, tls)


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(f"//{url}")
        return parts.hostname is not None and parts.port != 0  # reading `port` raises if it is none
    except ValueError:
        return False
