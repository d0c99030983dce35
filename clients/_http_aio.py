"""KServe V2 over HTTP with binary tensors, for asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import aiohttp
import numpy.typing as npt
import tritonclient.http.aio as triton

from nann.errors import NannError
from nann.signature import ENSEMBLE

from ._codec import InferRequest
from ._errors import timed_out, translated, unavailable
from ._http import settings_of
from ._infer import infer_arguments, output_arrays
from ._tls import Tls

_NO_LIMIT_S = 10.0**6
"""Of tritonclient, for each answer: the request has a limit of its own."""


class AsyncHttpTransport:
    """Connections that are kept open, for the tasks of one event loop; at most 100: more requests wait here.

    Args:
        url: `host:port`.
        tls: None: unencrypted.
    """

    def __init__(self, url: str, tls: Tls | None = None) -> None:
        self._url, self._tls = url, tls

    @cached_property
    def _client(self) -> triton.InferenceServerClient:  # it needs the event loop
        context = None if self._tls is None else self._tls.context()
        return triton.InferenceServerClient(
            self._url, ssl=context is not None, ssl_context=context, conn_timeout=_NO_LIMIT_S
        )

    async def infer(self, request: InferRequest, timeout_s: float) -> Mapping[str, npt.NDArray[Any]]:
        """See `Transport.infer`."""
        with self._translated(timeout_s):
            answer = self._client.infer(**infer_arguments(triton, request))
            return output_arrays(request, await asyncio.wait_for(answer, timeout_s))

    async def is_ready(self, timeout_s: float) -> bool:
        """See `Transport.is_ready`."""
        try:
            with self._translated(timeout_s):
                return bool(await asyncio.wait_for(self._client.is_server_ready(), timeout_s))
        except NannError:
            return False

    async def settings(self, timeout_s: float) -> Mapping[str, str]:
        """See `Transport.settings`."""
        with self._translated(timeout_s):
            return settings_of(await asyncio.wait_for(self._client.get_model_config(ENSEMBLE.name), timeout_s))

    async def close(self) -> None:
        """See `Transport.close`."""
        await self._client.close()

    @contextmanager
    def _translated(self, timeout_s: float) -> Iterator[None]:
        """As `translated`, for what aiohttp raises too."""
        with translated(self._url, timeout_s):
            try:
                yield
            except asyncio.TimeoutError as error:  # another one than TimeoutError in Python 3.10
                raise timed_out(self._url, timeout_s) from error
            except (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError) as error:
                raise unavailable(self._url, error) from error
