"""The sync client: codec, transport, and a clock."""

from __future__ import annotations

import time
from dataclasses import replace
from functools import cached_property
from numbers import Real
from typing import Any

from nann.errors import ConfigError, InvalidInputError, NannError, RequestError
from nann.item_ids import KINDS, NUMBERS, IdKind
from nann.search_params import SearchOptions
from nann.signature import BUNDLE_SETTING, ID_KIND_SETTING

from ._codec import InferRequest, RetrievalResult, decode_result, encode_request, join, split
from ._rows import ItemIds, UserIds
from ._tls import Tls
from ._transport import Transport, open_transport

_DEADLINE_SHARE = 0.9
"""Of the timeout, for the server's work: its answer, or its error, then comes before the client gives up. Triton before
25.04 can crash if a gRPC request is cancelled while its answer is sent (Triton's issues 7368 and 8034)."""
DEFAULT_TIMEOUT_S = 10.0
_LONGEST_S = 86_400


class RetrievalClient:
    """Asks the served ensemble for the best items of the whole corpus.

    Over gRPC it may be shared by threads; over HTTP each thread needs its own.

    Example:
        with RetrievalClient("127.0.0.1:8001") as client:
            result = client.retrieve([11, 12, 13], top_k=50)

    Args:
        url: `host:port`, of the port that belongs to `protocol`.
        protocol: "grpc" or "http".
        timeout_s: for requests that name none; at most a day.
        tls: speak TLS with the server; None: unencrypted.
        transport: carries the requests in place of `protocol`.

    Raises:
        ConfigError: if the arguments are not usable.
        ModuleNotFoundError: if tritonclient is not installed.
    """

    def __init__(
        self,
        url: str = "127.0.0.1:8001",
        protocol: str = "grpc",
        timeout_s: float = DEFAULT_TIMEOUT_S,
        *,
        tls: Tls | None = None,
        transport: Transport | None = None,
    ) -> None:
        self._timeout_s = _checked(timeout_s, ConfigError)
        self._transport = transport if transport is not None else open_transport(url, protocol, timeout_s, tls)

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
            timeout_s: how long to wait for the answer to each request; None: the client's.
            request_id: echoed by the server, for logs.
            parameters: fields of `SearchOptions`, in place of those of `options`.

        Raises:
            RequestError: if the request is invalid; naming the tensor or parameter.
            RequestTimeout: if no answer came in time, or the deadline passed.
            ServerOverloaded: if too many requests wait already; try again later, or another server.
            ServerUnavailable: if no server answers at the address, or it is not ready.
            ServerError: if the server failed.
        """
        timeout_s = self._timeout_s if timeout_s is None else _checked(timeout_s, RequestError)
        options = replace(options or SearchOptions(), **parameters)
        if options.deadline_ms is None:
            options = replace(options, deadline_ms=max(1, int(_DEADLINE_SHARE * timeout_s * 1000)))
        request = encode_request(
            behavior_item_ids,
            options,
            user_id=user_id,
            user_profile=user_profile,
            exclude_item_ids=exclude_item_ids,
            allow_item_ids=allow_item_ids,
            priority=priority,
            request_id=request_id,
            id_kind=self._kind_or_numbers,
        )
        return join([self._ask(part, timeout_s) for part in split(request)])

    def bundle_id(self) -> str | None:
        """Which bundle answers: the `bundle_id` of its manifest; None from a server that does not say it.

        Raises:
            ServerUnavailable: if no server answers at the address, or it is not ready.
            ServerError: if the server failed.
        """
        return self._transport.settings(self._timeout_s).get(BUNDLE_SETTING)

    def id_kind(self) -> IdKind:
        """The kind of the server's item ids (`nann.item_ids`): numbers or text. It is asked for once.

        Raises:
            ServerUnavailable: if no server answers at the address, or it is not ready.
            ServerError: if the server failed.
        """
        return self._kind_of_server

    def is_ready(self) -> bool:
        """Whether the server answers and all its models are loaded; never raises if no server can be reached."""
        return self._transport.is_ready(self._timeout_s)

    def close(self) -> None:
        """Closes the connection."""
        self._transport.close()

    @cached_property
    def _kind_of_server(self) -> IdKind:
        return KINDS.get(self._transport.settings(self._timeout_s).get(ID_KIND_SETTING, ""), NUMBERS)

    def _kind_or_numbers(self) -> IdKind:
        try:
            return self.id_kind()
        except NannError:  # such as that of a proxy that lets only requests pass
            return NUMBERS

    def _ask(self, request: InferRequest, timeout_s: float) -> RetrievalResult:
        start_ns = time.perf_counter_ns()
        outputs = self._transport.infer(request, timeout_s)
        return decode_result(request, outputs, (time.perf_counter_ns() - start_ns) / 1e6)

    def __enter__(self) -> RetrievalClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _checked(timeout_s: float, kind: type[InvalidInputError]) -> float:
    if not isinstance(timeout_s, Real) or not 0 < timeout_s <= _LONGEST_S:
        raise kind(f"timeout_s is {timeout_s!r}; expected more than 0 and at most {_LONGEST_S} seconds")
    return float(timeout_s)
