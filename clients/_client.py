"""The sync client: codec, transport, and a clock."""

from __future__ import annotations

import time

from nann.errors import ConfigError

from ._codec import ItemIds, PerLayer, RetrievalResult, decode_result, encode_request
from ._tls import Tls
from ._transport import Transport, open_transport

_DEADLINE_SHARE = 0.9
"""Of the timeout: the server's answer, or its error, comes before we hang up. A request that is cancelled in the moment
of its answer can take Triton's gRPC down in releases before 25.04 (its issues 7368 and 8034)."""
DEFAULT_TIMEOUT_S = 10.0
_LONGEST_S = 86400.0


class RetrievalClient:
    """Asks the served ensemble for the best items of the whole corpus.

    Over gRPC it may be shared by threads; over HTTP each thread needs its own.

    Example:
        with RetrievalClient("127.0.0.1:8001") as client:
            result = client.retrieve([11, 12, 13], top_k=50)

    Args:
        url: `host:port`, of the port that belongs to `protocol`.
        protocol: "grpc" or "http".
        timeout_s: for every request that names none.
        tls: speak TLS with the server; None: unencrypted.
        transport: carries the requests in place of `protocol`.

    Raises:
        ConfigError: if the arguments are not usable, or tritonclient is not installed.
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
        self._timeout_s = _positive(timeout_s)
        self._transport = transport if transport is not None else open_transport(url, protocol, timeout_s, tls)

    def retrieve(
        self,
        behavior_item_ids: ItemIds,
        *,
        user_profile: ItemIds | None = None,
        top_k: int | None = None,
        ef: PerLayer | None = None,
        rounds: PerLayer | None = None,
        entry: str | None = None,
        seeds: int | None = None,
        seed_ef: int | None = None,
        deadline_ms: int | None = None,
        on_deadline: str | None = None,
        priority: int = 0,
        timeout_s: float | None = None,
        request_id: str = "",
    ) -> RetrievalResult:
        """The best items of one user or several.

        Args:
            behavior_item_ids: one user's history, or a list of them: external ids, oldest first. Ids that the server
                does not know are dropped and counted; an empty history is answered.
            user_profile: one code a profile field, for each user; where the data set has such fields.
            top_k: how many items; None: what the bundle recommends. So for all up to `seed_ef`.
            ef: search width a layer, entry layer first: "100,200,400" or (100, 200, 400); one number with seeds.
            rounds: rounds a layer, entry layer first; one number with seeds.
            entry: where the walk enters the graph: "layers" (the paper's) or "seeds" of a light walk.
            seeds: with entry "seeds", how many.
            seed_ef: with entry "seeds", search width of the light walk.
            deadline_ms: how long the server may work on it, counted from its arrival there; None: nine tenths of
                `timeout_s`, so that nobody works for a client that has gone. Never longer than the server's own
                deadline.
            on_deadline: what to get when that is over before the last round: "error", or "partial", the best items so
                far, with `STATUS_PARTIAL`. Leave the answer time to travel: a deadline below `timeout_s`.
            priority: 1 the most important, 2 the usual, 3 what may wait; 0: the server's default, 2.
            timeout_s: how long to wait; None: the client's.
            request_id: echoed by the server, for logs.

        Raises:
            RequestError: if the request is invalid; naming the tensor or parameter.
            RequestTimeout: if no answer came in time, or the deadline was over.
            ServerOverloaded: if too many requests wait there already; ask again later, or elsewhere.
            ServerUnavailable: if no server answers at the address, or it is not ready.
            ServerError: if the server failed.
        """
        timeout_s = self._timeout_s if timeout_s is None else _positive(timeout_s)
        request = encode_request(
            behavior_item_ids,
            user_profile=user_profile,
            top_k=top_k,
            ef=ef,
            rounds=rounds,
            entry=entry,
            seeds=seeds,
            seed_ef=seed_ef,
            deadline_ms=_milliseconds(_DEADLINE_SHARE * timeout_s) if deadline_ms is None else deadline_ms,
            on_deadline=on_deadline,
            priority=priority,
            request_id=request_id,
        )
        start_ns = time.perf_counter_ns()
        outputs = self._transport.infer(request, timeout_s)
        return decode_result(outputs, (time.perf_counter_ns() - start_ns) / 1e6)

    def is_ready(self) -> bool:
        """Whether the server answers and all its models are loaded; never raises for a server that is away."""
        return self._transport.is_ready(self._timeout_s)

    def close(self) -> None:
        """Closes the connection."""
        self._transport.close()

    def __enter__(self) -> RetrievalClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _positive(timeout_s: float) -> float:
    if not timeout_s > 0:
        raise ConfigError(f"timeout_s is {timeout_s}; expected more than 0 seconds")
    return timeout_s


def _milliseconds(timeout_s: float) -> int:
    return max(1, int(min(timeout_s, _LONGEST_S) * 1000))
