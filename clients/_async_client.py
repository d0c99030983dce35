"""The asyncio client: it carries out the same steps as the sync client."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from nann.errors import NannError
from nann.item_ids import IdKind
from nann.search_params import SearchOptions

from ._addresses import parse_addresses
from ._codec import RetrievalResult
from ._conversation import DEFAULT_TIMEOUT_S, Conversation, ServedBundle, Steps, T, Wait
from ._rows import ItemIds, UserIds
from ._tls import Tls
from ._transport import AsyncTransport, open_async_transport


class AsyncRetrievalClient:
    """`RetrievalClient` for asyncio: many requests of one event loop share its connections.

    A task that is cancelled ends at once. Over gRPC its request runs to its end, and its answer is dropped: Triton
    before 25.04 can crash if a request is cancelled while its answer is sent.

    Example:
        async with AsyncRetrievalClient("127.0.0.1:8001") as client:
            results = await asyncio.gather(*(client.retrieve(ids) for ids in histories))

    Args:
        url: as for `RetrievalClient`.
        protocol: "grpc" or "http".
        timeout_s: for requests that name none; at most a day.
        retry: as for `RetrievalClient`.
        tls: speak TLS with the server; None: unencrypted.
        transport: carries the requests in place of `protocol`.

    Raises:
        ConfigError: if the arguments are not usable.
        ModuleNotFoundError: if tritonclient is not installed.
    """

    def __init__(
        self,
        url: str | Sequence[str] = "127.0.0.1:8001",
        protocol: str = "grpc",
        timeout_s: float = DEFAULT_TIMEOUT_S,
        *,
        retry: bool = True,
        tls: Tls | None = None,
        transport: AsyncTransport | None = None,
    ) -> None:
        addresses = parse_addresses(url)
        self._conversation = Conversation(len(addresses) if transport is None else 1, timeout_s, retry)
        self._transports = (
            [open_async_transport(address, protocol, tls) for address in addresses]
            if transport is None
            else [transport]
        )

    async def retrieve(
        self,
        behavior_item_ids: ItemIds | None = None,
        options: SearchOptions | None = None,
        *,
        user_id: UserIds | None = None,
        user_profile: ItemIds | None = None,
        exclude_item_ids: ItemIds | None = None,
        allow_item_ids: ItemIds | None = None,
        priority: int = 0,
        timeout_s: float | None = None,
        request_id: str = "",
        **parameters: Any,
    ) -> RetrievalResult:
        """As `RetrievalClient.retrieve`: the same arguments, answers and errors."""
        steps = self._conversation.retrieve(
            behavior_item_ids,
            options,
            parameters,
            timeout_s,
            user_id=user_id,
            user_profile=user_profile,
            exclude_item_ids=exclude_item_ids,
            allow_item_ids=allow_item_ids,
            priority=priority,
            request_id=request_id,
        )
        return await self._carry_out(steps)

    async def bundle_id(self) -> str | None:
        """As `RetrievalClient.bundle_id`."""
        return (await self.served_bundle()).bundle_id

    async def served_bundle(self) -> ServedBundle:
        """As `RetrievalClient.served_bundle`."""
        return await self._carry_out(self._conversation.served_bundle())

    async def id_kind(self) -> IdKind:
        """As `RetrievalClient.id_kind`."""
        return await self._carry_out(self._conversation.id_kind())

    async def is_ready(self) -> bool:
        """As `RetrievalClient.is_ready`."""
        return await self._carry_out(self._conversation.is_ready())

    async def close(self) -> None:
        """Closes the connections."""
        await asyncio.gather(*(transport.close() for transport in self._transports))

    async def _carry_out(self, steps: Steps[T]) -> T:
        try:
            step = next(steps)
            while True:
                if isinstance(step, Wait):
                    await asyncio.sleep(step.seconds)
                    step = next(steps)
                    continue
                try:
                    answer = await step.of(self._transports)
                except NannError as error:
                    step = steps.throw(error)
                else:
                    step = steps.send(answer)
        except StopIteration as done:
            result: T = done.value
            return result

    async def __aenter__(self) -> AsyncRetrievalClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
