"""The sync client: it carries out the steps of a conversation with its servers."""

from __future__ import annotations

import time
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
from ._transport import Transport, open_transport


class RetrievalClient:
    """Asks the served ensemble for the best items of the whole corpus.

    Over gRPC it may be shared by threads; over HTTP each thread needs its own.

    Example:
        with RetrievalClient("127.0.0.1:8001") as client:
            result = client.retrieve([11, 12, 13], top_k=50)

    Args:
        url: `host:port`, of the port that belongs to `protocol`; several separated by commas, or a list. Requests go to
            them in turn, and not to one that does not answer until it does again.
        protocol: "grpc" or "http".
        timeout_s: for requests that name none; at most a day.
        retry: send a request again, after waits that double, while its timeout lasts and no server answers; False: once
            to each address. Only a request that no server has answered is sent again.
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
        transport: Transport | None = None,
    ) -> None:
        addresses = parse_addresses(url)
        self._conversation = Conversation(len(addresses) if transport is None else 1, timeout_s, retry)
        self._transports = (
            [open_transport(address, protocol, timeout_s, tls) for address in addresses]
            if transport is None
            else [transport]
        )

    def retrieve(
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
        """The best items of one user or several.

        `SearchOptions` says what to ask of the search; one object serves many requests. For short calls its fields are
        keywords here too: `retrieve(ids, top_k=10)` is `retrieve(ids, SearchOptions(top_k=10))`. This signature does
        not repeat their names, so that each parameter is defined in one place. The server takes 16 users at once: more
        are sent as several requests, one after the other. A deploy may fall between two of them.

        Args:
            behavior_item_ids: one user's history, or a list of them: external ids, oldest first, whole numbers or
                texts as the server's bundle has them. Ids that the server does not know are dropped and counted; an
                empty history is answered. None: the users' stored histories alone (`user_id`).
            options: what to ask of the search; None: the defaults of bundle and server. Without a `deadline_ms` the
                server may work for nine tenths of `timeout_s`, so that it stops before the client gives up. With
                `on_deadline` "partial", set a deadline below `timeout_s`, so that the answer has time to arrive.
            user_id: number or text, or one for each user: the server reads the user's history from its store, and
                `behavior_item_ids` come after it; None, or "": no stored history.
            user_profile: one code per user profile field, for each user, if the data set has such fields; None: the
                stored one, if any.
            exclude_item_ids: external ids that no user may get, or a list for each user. Unknown ids are ignored.
            allow_item_ids: external ids that alone may be returned, or a list for each user; a user whose list has no
                known id gets nothing. All conditions of a request hold together: these two, and `exclude_history`,
                `filter` and `filter_name` of the options.
            priority: 1 high, 2 normal, 3 low; 0: the server's default, 2.
            timeout_s: how long to wait for the answer to each request, all attempts together; None: the client's.
            request_id: echoed by the server, for logs.
            parameters: fields of `SearchOptions`, in place of those of `options`.

        Raises:
            RequestError: if the request is invalid; naming the tensor or parameter.
            RequestTimeout: if no answer came in time, or the deadline passed.
            ServerOverloaded: if too many requests wait already; try again later, or another server.
            ServerUnavailable: if no server answers, or none is ready.
            ServerError: if the server failed.
        """
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
        return self._carry_out(steps)

    def bundle_id(self) -> str | None:
        """Which bundle answers: the `bundle_id` of its manifest; None from a server that does not say it.

        Raises:
            ServerUnavailable: if no server answers at the address, or it is not ready.
            ServerError: if the server failed.
        """
        return self.served_bundle().bundle_id

    def served_bundle(self) -> ServedBundle:
        """As `bundle_id`, with the bundle's identity, which changes with its recommended search too."""
        return self._carry_out(self._conversation.served_bundle())

    def id_kind(self) -> IdKind:
        """The kind of the server's item ids (`nann.item_ids`): numbers or text. It is asked for once.

        Raises:
            ServerUnavailable: if no server answers at the address, or it is not ready.
            ServerError: if the server failed.
        """
        return self._carry_out(self._conversation.id_kind())

    def is_ready(self) -> bool:
        """Whether a server answers and all its models are loaded; never raises if none can be reached."""
        return self._carry_out(self._conversation.is_ready())

    def close(self) -> None:
        """Closes the connections."""
        for transport in self._transports:
            transport.close()

    def _carry_out(self, steps: Steps[T]) -> T:
        try:
            step = next(steps)
            while True:
                if isinstance(step, Wait):
                    time.sleep(step.seconds)
                    step = next(steps)
                    continue
                try:
                    answer = step.of(self._transports)
                except NannError as error:
                    step = steps.throw(error)
                else:
                    step = steps.send(answer)
        except StopIteration as done:
            result: T = done.value
            return result

    def __enter__(self) -> RetrievalClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
