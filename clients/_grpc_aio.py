"""KServe V2 over gRPC, for asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy.typing as npt
import tritonclient.grpc.aio as triton
from tritonclient.utils import InferenceServerException

from nann.signature import ENSEMBLE

from ._codec import InferRequest
from ._errors import translated
from ._grpc import CHANNEL, settings_of
from ._infer import infer_arguments, output_arrays
from ._tls import Tls


class AsyncGrpcTransport:
    """One channel, for the tasks of one event loop.

    Args:
        url: `host:port`.
        tls: None: unencrypted.
    """

    def __init__(self, url: str, tls: Tls | None = None) -> None:
        self._url, self._tls = url, tls
        self._left: set[asyncio.Future[Any]] = set()

    @cached_property
    def _client(self) -> triton.InferenceServerClient:  # it needs the event loop
        options = self._tls.grpc_options() if self._tls is not None else {}
        return triton.InferenceServerClient(self._url, channel_args=CHANNEL, **options)

    async def infer(self, request: InferRequest, timeout_s: float) -> Mapping[str, npt.NDArray[Any]]:
        """See `Transport.infer`. Where the task is cancelled, the request itself is not."""
        with translated(self._url, timeout_s):
            call = asyncio.ensure_future(
                self._client.infer(**infer_arguments(triton, request), client_timeout=timeout_s)
            )
            try:
                return output_arrays(request, await asyncio.shield(call))
            except asyncio.CancelledError:
                self._left.add(call)
                call.add_done_callback(self._ended)
                raise

    async def is_ready(self, timeout_s: float) -> bool:
        """See `Transport.is_ready`."""
        try:
            return bool(await self._client.is_server_ready(client_timeout=timeout_s))
        except InferenceServerException:
            return False

    async def settings(self, timeout_s: float) -> Mapping[str, str]:
        """See `Transport.settings`."""
        with translated(self._url, timeout_s):
            return settings_of(await self._client.get_model_config(ENSEMBLE.name, client_timeout=timeout_s))

    async def close(self) -> None:
        """See `Transport.close`. It waits for the requests of cancelled tasks: to close would cancel them too."""
        await asyncio.gather(*self._left, return_exceptions=True)
        await self._client.close()

    def _ended(self, call: asyncio.Future[Any]) -> None:
        self._left.discard(call)
        if not call.cancelled():
            call.exception()  # else asyncio logs that nobody asked for it
