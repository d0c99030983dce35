"""The interface of a transport, and the choice between gRPC and HTTP."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

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


class AsyncTransport(Protocol):
    """A `Transport` whose methods are coroutines, with the same arguments, answers and errors.

    It is made outside of an event loop too, and opens its connection with its first request.
    """

    async def infer(self, request: InferRequest, timeout_s: float) -> Mapping[str, npt.NDArray[Any]]:
        """See `Transport.infer`."""

    async def is_ready(self, timeout_s: float) -> bool:
        """See `Transport.is_ready`."""

    async def settings(self, timeout_s: float) -> Mapping[str, str]:
        """See `Transport.settings`."""

    async def close(self) -> None:
        """See `Transport.close`."""


def open_transport(address: str, protocol: str, timeout_s: float, tls: Tls | None = None) -> Transport:
    """The transport for `protocol` to `host:port`, encrypted with `tls`.

    Raises:
        ConfigError: if there is no such protocol.
        ModuleNotFoundError: if tritonclient, of the extra `client`, is not installed.
    """
    _check(protocol)
    if protocol == "grpc":
        from ._grpc import GrpcTransport

        return GrpcTransport(address, tls)
    from ._http import HttpTransport

    return HttpTransport(address, timeout_s, tls)


def open_async_transport(address: str, protocol: str, tls: Tls | None = None) -> AsyncTransport:
    """As `open_transport`, for asyncio."""
    _check(protocol)
    if protocol == "grpc":
        from ._grpc_aio import AsyncGrpcTransport

        return AsyncGrpcTransport(address, tls)
    from ._http_aio import AsyncHttpTransport

    return AsyncHttpTransport(address, tls)


def _check(protocol: str) -> None:
    if protocol not in PROTOCOLS:
        raise ConfigError(f"protocol is {protocol!r}; expected {' or '.join(PROTOCOLS)}")
