"""The answers of a batch job from servers."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Coroutine, Iterable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from nann.errors import ConfigError, NannError, ServerError, ServerOverloaded, ServerUnavailable
from nann.item_ids import IdKind
from nann.search_params import SearchOptions
from nann.shape_grid import MAX_BATCH_SIZE
from nann.signature import STATUS_COMPLETE, STATUS_NAMES

from ..clients import AsyncRetrievalClient, ServedBundle, Tls

if TYPE_CHECKING:
    from ..training.batch.answers import Answers
    from ..training.batch.histories import Histories

T = TypeVar("T")
BLOCK = MAX_BATCH_SIZE
_PRIORITY = 3
"""Bulk jobs wait behind what people ask."""
_BUSY_WAIT_S, _BUSY_S = 0.5, 600.0
"""How long to wait where the servers are overloaded before a request is sent again, and all in all."""


class ServedAnswers:
    """Servers of one bundle; a context manager.

    Args:
        addresses: of the servers.
        protocol: "grpc" or "http".
        options: of every user.
        timeout_s: for each request.
        in_flight: the most requests at the same time.
        tls: TLS files; None: the servers have no TLS.

    Entering raises ConfigError if the servers answer from different bundles, and ServerError if none answers, or one
    does not name its bundle.

    Attributes:
        bundle: which they answer from.
        id_kind: of its item ids.
    """

    def __init__(
        self,
        addresses: list[str],
        protocol: str,
        options: SearchOptions,
        timeout_s: float,
        in_flight: int,
        tls: Tls | None = None,
    ) -> None:
        self._options, self._in_flight = options, in_flight
        self._loop = asyncio.new_event_loop()
        self._client = AsyncRetrievalClient(addresses, protocol, timeout_s, tls=tls)
        self._each = {address: AsyncRetrievalClient(address, protocol, timeout_s, tls=tls) for address in addresses}

    def answers(self, blocks: Iterable[Histories]) -> Iterator[Answers]:
        """Those of each block of users, in order.

        Raises:
            ServerError: if an answer is not complete, or none came.
        """
        waiting: deque[asyncio.Task[Answers]] = deque()
        for block in blocks:
            waiting.append(self._loop.create_task(self._ask(block)))
            if len(waiting) == self._in_flight:
                yield self._loop.run_until_complete(waiting.popleft())
        while waiting:
            yield self._loop.run_until_complete(waiting.popleft())

    def check(self) -> None:
        """Raises ServerError if a server answers from another bundle by now."""
        bundle = self._common_bundle()
        if bundle != self.bundle:
            raise ServerError(
                f"the servers answer from bundle {bundle}, and answered from {self.bundle} before; the parts of "
                "that one are kept: give another folder for the new one"
            )

    def __enter__(self) -> ServedAnswers:
        try:
            self.bundle = self._common_bundle()
            self.id_kind: IdKind = self._wait_for(self._client.id_kind())
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._wait_for(self._close())
        self._loop.close()

    async def _close(self) -> None:
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        for client in (self._client, *self._each.values()):
            await client.close()

    async def _ask(self, block: Histories) -> Answers:
        from ..training.batch.answers import Answers

        patience_ends = self._loop.time() + _BUSY_S
        while True:
            try:
                found = await self._client.retrieve(
                    [*block.lists()], self._options, user_profile=block.profiles, priority=_PRIORITY
                )
                break
            except ServerOverloaded:
                if self._loop.time() > patience_ends:
                    raise
            await asyncio.sleep(_BUSY_WAIT_S)
        if (found.status != STATUS_COMPLETE).any():
            status = STATUS_NAMES[found.status.max()]
            raise ServerError(
                f"a server's answer is {status}, and not what its scorer would say; the parts that are complete are "
                "kept: run the command again when the server is well"
            )
        return Answers(found.item_ids, found.scores, int(found.unknown_items.sum()))

    def _common_bundle(self) -> ServedBundle:
        answers = self._wait_for(self._ask_each())
        found = {answer: address for address, answer in answers.items() if not isinstance(answer, NannError)}
        if not found:
            raise next(answer for answer in answers.values() if isinstance(answer, NannError))
        if len(found) > 1:
            shown = ", ".join(f"{address} {bundle}" for bundle, address in found.items())
            raise ConfigError(f"the servers answer from different bundles: {shown}; deploy the same one to all")
        (bundle,) = found
        if bundle.bundle_id is None:
            raise ServerError("the server does not say which bundle it serves; start it with `nann serve`")
        return bundle

    async def _ask_each(self) -> dict[str, ServedBundle | NannError]:
        async def ask(client: AsyncRetrievalClient) -> ServedBundle | NannError:
            try:
                return await client.served_bundle()
            except ServerUnavailable as error:
                return error

        return dict(zip(self._each, await asyncio.gather(*map(ask, self._each.values())), strict=True))

    def _wait_for(self, what: Coroutine[Any, Any, T]) -> T:
        return self._loop.run_until_complete(what)
