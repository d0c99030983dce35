"""What a client does, as steps that the sync and the async client only carry out."""

from __future__ import annotations

import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from numbers import Real
from typing import Any, NamedTuple, TypeVar

from nann.errors import (
    ConfigError,
    InvalidInputError,
    NannError,
    RequestError,
    RequestTimeout,
    ServerOverloaded,
    ServerUnavailable,
)
from nann.item_ids import KINDS, NUMBERS, IdKind
from nann.search_params import SearchOptions, check_names
from nann.signature import BUNDLE_SETTING, ID_KIND_SETTING, IDENTITY_SETTING

from ._addresses import Addresses, Attempts
from ._codec import InferRequest, RetrievalResult, decode_result, encode_request, join, split

T = TypeVar("T")

_DEADLINE_SHARE = 0.9
"""Of the timeout, for the server's work: its answer, or its error, then comes before the client gives up. Triton before
25.04 can crash if a gRPC request is cancelled while its answer is sent (Triton's issues 7368 and 8034)."""
DEFAULT_TIMEOUT_S = 10.0
_LONGEST_S = 86_400


@dataclass(frozen=True)
class Call:
    """A step: call a method of the transport of one server; what it returns or raises goes back to the steps."""

    place: int
    method: str
    arguments: Sequence[Any]

    def of(self, transports: Sequence[Any]) -> Any:
        """The call itself."""
        return getattr(transports[self.place], self.method)(*self.arguments)


@dataclass(frozen=True)
class Wait:
    """A step: do nothing for so long."""

    seconds: float


Steps = Generator[Call | Wait, Any, T]
"""Steps that end with a result. Each is carried out before the next is asked for."""


class _KindUnknown(Exception):  # noqa: N818 - it asks for something
    """The server must say first whether its ids are numbers or text."""


class ServedBundle(NamedTuple):
    """The bundle that answers, as a server names it; None: the server does not say it.

    Attributes:
        bundle_id: of its manifest; the same files have the same.
        identity: its `Bundle.identity`, which differs where the same files have another recommended search.
    """

    bundle_id: str | None
    identity: str | None

    def __str__(self) -> str:
        return f"{self.bundle_id}" if self.identity is None else f"{self.bundle_id} (identity {self.identity})"


class Conversation:
    """The steps of every method of a client.

    Args:
        servers: how many there are.
        timeout_s: for requests that name none.
        retry: whether a request is sent again while its timeout lasts.

    Raises:
        ConfigError: if the timeout is none.
    """

    def __init__(self, servers: int, timeout_s: float, retry: bool) -> None:
        self._timeout_s = _checked(timeout_s, ConfigError)
        self._addresses = Addresses(servers)
        self._retry = retry
        self._kind: IdKind | None = None

    def retrieve(
        self,
        behavior_item_ids: Any,
        options: SearchOptions | None,
        parameters: dict[str, Any],
        timeout_s: float | None,
        **inputs: Any,
    ) -> Steps[RetrievalResult]:
        """Those of `RetrievalClient.retrieve`; `inputs` are further arguments of `encode_request`."""
        timeout_s = self._timeout_s if timeout_s is None else _checked(timeout_s, RequestError)
        check_names(parameters, ("options", "timeout_s", "behavior_item_ids", *inputs))
        if not isinstance(options, SearchOptions | None):
            raise RequestError(f"options is {options!r}; expected SearchOptions, or their fields as keywords: top_k=10")
        options = replace(options or SearchOptions(), **parameters)
        encode = partial(encode_request, behavior_item_ids, options, **inputs)
        request = None
        with suppress(_KindUnknown):
            request = encode(id_kind=self._known_kind)
        if request is None:
            kind = yield from self._kind_or_numbers()
            request = encode(id_kind=lambda: kind)
        results = []
        for part in split(request):
            results.append((yield from self._answer(part, timeout_s)))  # noqa: PERF401 - a list can't yield
        return join(results)

    def settings(self) -> Steps[Mapping[str, str]]:
        """The parameters of the served ensemble, from the first server that gives them."""
        *others, last = range(self._addresses.count)
        for place in others:
            with suppress(ServerUnavailable, RequestTimeout):
                return (yield Call(place, "settings", (self._timeout_s,)))  # type: ignore[no-any-return]
        return (yield Call(last, "settings", (self._timeout_s,)))  # type: ignore[no-any-return]

    def served_bundle(self) -> Steps[ServedBundle]:
        """Those of `RetrievalClient.served_bundle`."""
        settings = yield from self.settings()
        return ServedBundle(settings.get(BUNDLE_SETTING), settings.get(IDENTITY_SETTING))

    def id_kind(self) -> Steps[IdKind]:
        """Those of `RetrievalClient.id_kind`."""
        if self._kind is None:
            self._kind = KINDS.get((yield from self.settings()).get(ID_KIND_SETTING, ""), NUMBERS)
        return self._kind

    def is_ready(self) -> Steps[bool]:
        """Those of `RetrievalClient.is_ready`."""
        for place in range(self._addresses.count):
            if (yield Call(place, "is_ready", (self._timeout_s,))):
                return True
        return False

    def _known_kind(self) -> IdKind:
        if self._kind is None:
            raise _KindUnknown
        return self._kind

    def _kind_or_numbers(self) -> Steps[IdKind]:
        try:
            return (yield from self.id_kind())
        except NannError:  # such as that of a proxy that lets only requests pass
            return NUMBERS

    def _answer(self, request: InferRequest, timeout_s: float) -> Steps[RetrievalResult]:
        start_ns = time.perf_counter_ns()
        attempts = Attempts(self._addresses, timeout_s, retry=self._retry)
        while True:
            place, left_s = attempts.start()
            sent = _due_in(request, left_s)
            try:
                outputs = yield Call(place, "infer", (sent, left_s))
            except (ServerUnavailable, ServerOverloaded) as error:
                yield Wait(attempts.failed(error))
            except RequestTimeout:
                raise
            except NannError:
                attempts.answered()
                raise
            else:
                attempts.answered()
                return decode_result(sent, outputs, (time.perf_counter_ns() - start_ns) / 1e6)


def _due_in(request: InferRequest, seconds: float) -> InferRequest:
    """The request for one attempt: with a key of its own, and, where it has no deadline, one before the timeout."""
    deadline_ms = request.parameters.get("deadline_ms", max(1, int(_DEADLINE_SHARE * seconds * 1000)))
    return replace(request, parameters={**request.parameters, "deadline_ms": deadline_ms})


def _checked(timeout_s: float, kind: type[InvalidInputError]) -> float:
    if not isinstance(timeout_s, Real) or not 0 < timeout_s <= _LONGEST_S:
        raise kind(f"timeout_s is {timeout_s!r}; expected more than 0 and at most {_LONGEST_S} seconds")
    return float(timeout_s)
