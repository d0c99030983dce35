"""Everything that the page can ask for, as JSON values."""

from __future__ import annotations

import asyncio
import random
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from nann.errors import ConfigError, NannError, RequestError, ServerUnavailable
from nann.filters import NamedFilters
from nann.item_ids import Ids
from nann.kernels import Float32Array, Int32Array
from nann.signature import PADDING_ITEM, STATUS_NAMES

from ..clients import AsyncRetrievalClient, ServedBundle, Tls
from .asked import Asked
from .comparison import RankedList, cascade, exhaustive
from .corpus import Corpus
from .health import HealthLog, read_samples
from .snippets import as_curl, as_python

if TYPE_CHECKING:
    from .people import HeldOutUsers
    from .replay import Replay

T = TypeVar("T")
_POLL_S = 1.5
"""The least time between two readings of the metrics, however many pages ask."""
_METRICS_TIMEOUT_S = 2.0


@dataclass(frozen=True)
class Addresses:
    """Where the server answers.

    Attributes:
        grpc: host:port.
        http: host:port, or a URL such as https://host:port, for commands to copy.
        metrics: the same, of the metrics.
    """

    grpc: str
    http: str
    metrics: str


class Explorer:
    """Answers of a server, and what explains them.

    Args:
        addresses: of the server.
        corpus: of its bundle.
        replay: opens the models of this bundle; called once, in the background.
        people: reads the test users; called once, in the background. None: there are none.
        timeout_s: how long to wait for the server.
        trust: TLS files; None: the server has no TLS.
        operator: filters that the server's operator has named; None: they are not known here.
    """

    def __init__(
        self,
        addresses: Addresses,
        corpus: Corpus,
        replay: Callable[[], Replay],
        people: Callable[[], HeldOutUsers] | None = None,
        timeout_s: float = 10.0,
        *,
        trust: Tls | None = None,
        operator: NamedFilters | None = None,
    ) -> None:
        self.addresses = addresses
        self._trust, self._operator = trust, operator
        self._corpus = corpus
        self._client: AsyncRetrievalClient | None = None
        self._timeout_s = timeout_s
        workers = ThreadPoolExecutor(2, "explore-models")
        self._replay = workers.submit(replay)
        self._people = None if people is None else workers.submit(people)
        workers.shutdown(wait=False)
        self._health = HealthLog()
        self._polled_s = 0.0

    def asked(self, body: Any) -> Asked:
        """Reads a question; RequestError if it is none."""
        return Asked.of_json(body, self._corpus.bundle.item_count)

    async def about(self) -> dict[str, Any]:
        """The bundle, the dials' ranges and defaults, and where the server is."""
        about = await asyncio.to_thread(self._corpus.about)
        test_users = self._people is not None
        return {**about, "filters": await self.filters(), "server": vars(self.addresses), "test_users": test_users}

    async def filters(self) -> dict[str, str | None]:
        """The filters' texts by name, as they are now: an operator may set some at any time."""
        return await asyncio.to_thread(self._named_filters)

    async def status(self) -> dict[str, Any]:
        """Whether the server is ready, and answers from this page's bundle, with the search that it recommends."""
        client = self._opened()
        bundle, ready, served = self._corpus.bundle, False, ServedBundle(None, None)
        with suppress(NannError):
            ready = await client.is_ready()
            served = await client.served_bundle() if ready else served
        same = served.bundle_id in (None, bundle.bundle_id)
        same_search = same and served.identity in (None, bundle.identity)
        return {"ready": ready, "serves": served.bundle_id, "same_bundle": same, "same_search": same_search}

    async def found(self, text: str, limit: int) -> list[dict[str, Any]]:
        """Items by name, as typed so far."""
        return await asyncio.to_thread(self._corpus.found, text, limit)

    async def items(self, items: list[int]) -> list[dict[str, Any]]:
        """What the page shows of items."""
        return await asyncio.to_thread(self._corpus.described, items)

    async def background(self) -> bytes:
        """See `Corpus.background`."""
        return await asyncio.to_thread(self._corpus.background)

    async def random_user(self) -> dict[str, Any]:
        """A test user's history and next items, described.

        Raises:
            RequestError: if there are no test users.
        """
        if self._people is None:
            raise RequestError("no test users are known; start `nann explore` with --data, a prepared data set")
        people = await asyncio.wrap_future(self._people)
        user = people.user(random.randrange(len(people)))  # noqa: S311 - nothing is secret here
        return {**user, "described": await self.items(user["items"])}

    async def query(self, asked: Asked) -> dict[str, Any]:
        """The server's answer, over its public API.

        Raises:
            NannError: as the client raises them.
        """
        kind = self._corpus.bundle.id_kind
        ids = self._row(asked.items) if asked.items or asked.user_id is None else None
        result = await self._opened().retrieve(
            ids,
            asked.options,
            user_id=None if asked.user_id is None else [asked.user_id],
            user_profile=None if asked.profile is None else [asked.profile],
            exclude_item_ids=self._row(asked.excluded) if asked.excluded else None,
        )
        given = ~kind.is_padding(result.item_ids[0])
        found, scores = result.item_ids[0][given], result.scores[0][given]
        items = self._corpus.bundle.features.item_indices(found)

        def described() -> list[dict[str, Any]]:
            known = {each["item"]: each for each in self._corpus.described(items[items >= 0].tolist())}
            new: Iterable[dict[str, Any]] = (
                {"item": None, "id": str(one), "name": str(one), "attributes": {}} for one in found.tolist()
            )
            each = zip(items.tolist(), new, scores.tolist(), strict=True)
            return [{**known.get(item, other), "score": score} for item, other, score in each]

        return {
            "items": await asyncio.to_thread(described),
            "evaluations": int(result.items_scored[0]),
            "matching": int(result.items_matching[0]),
            "unknown": int(result.unknown_items[0]),
            "stored": int(result.stored_items[0]),
            "status": STATUS_NAMES[int(result.status[0])],
            "latency_ms": result.latency_ms,
        }

    async def walk(self, asked: Asked) -> dict[str, Any]:
        """The walk round by round, with name and place of every item in it.

        `walked` is False where all items that may be shown are scored, or the best of a scan, and there is no walk.
        """
        return await self._computed(lambda replay: self._walk(replay, asked))

    async def compare(self, asked: Asked, answer: list[int], evaluations: int) -> dict[str, Any]:
        """The exhaustive list and the cascade beside an answer.

        Args:
            asked: the question.
            answer: the answered items, best first.
            evaluations: that the answer took; the cascade gets as many.
        """
        return await self._computed(lambda replay: self._compare(replay, asked, answer, evaluations))

    def snippets(self, asked: Asked) -> dict[str, str]:
        """The question as a command of curl and as a program."""
        ids, kind = self._corpus.bundle.item_ids, self._corpus.bundle.id_kind
        return {
            "curl": as_curl(asked, ids, kind, with_scheme(self.addresses.http), self._trust),
            "python": as_python(asked, ids, kind, self.addresses.grpc, self._trust),
        }

    async def health(self) -> dict[str, Any]:
        """The server's metrics over the last minutes.

        Raises:
            ServerUnavailable: if they can't be read.
        """
        now_s = time.time()
        if now_s - self._polled_s >= _POLL_S:
            text = await asyncio.to_thread(_read_metrics, self.addresses.metrics, self._trust)
            self._polled_s = now_s  # only now: what can't be read is tried again by every page
            self._health.add(now_s, read_samples(text))
        return self._health.to_json()

    async def close(self) -> None:
        """Closes the connections."""
        if self._client is not None:
            await self._client.close()

    def _opened(self) -> AsyncRetrievalClient:
        # Opened within the event loop, to which its connections belong. What the server refuses is shown, not retried.
        if self._client is None:
            address, limit_s = self.addresses.grpc, self._timeout_s
            self._client = AsyncRetrievalClient(address, timeout_s=limit_s, retry=False, tls=self._trust)
        return self._client

    def _named_filters(self) -> dict[str, str | None]:
        """The filters' texts by name, the operator's before the bundle's; None: of a list of items."""
        found: dict[str, str | None] = dict(self._corpus.bundle.filters)
        if (operator := self._operator) is not None:
            for name in operator.names():
                with suppress(ConfigError, OSError):  # damaged, or not for us to read: who names it is told
                    definition = operator.read(name)
                    found[name] = definition if isinstance(definition, str) else None
        return dict(sorted(found.items()))

    def _row(self, items: Sequence[int]) -> Ids:
        """`[1, n]` external ids, as a request has them."""
        bundle = self._corpus.bundle
        return bundle.id_kind.row(bundle.id_kind.plain(bundle.item_ids[list(items)]))

    async def _computed(self, compute: Callable[[Replay], T]) -> T:
        replay = await asyncio.wrap_future(self._replay)
        return await asyncio.to_thread(compute, replay)

    def _walk(self, replay: Replay, asked: Asked) -> dict[str, Any]:
        person = replay.person(asked)
        walk = replay.walk(person)
        own = person.batch.own_items[0] if person.batch.own_items is not None else np.zeros(0, np.int32)
        own = own[own != PADDING_ITEM]
        items = np.union1d(walk.items, own).astype(np.int32)
        return {
            "entry": person.params.entry,
            "walked": replay.walks(person),
            "matching": int(walk.result.items_matching[0]),
            "rounds": [each.to_json() for each in walk.rounds],
            "own": own.tolist(),
            "items": items.tolist(),
            "names": [self._corpus.name(item) for item in items.tolist()],
            "places": np.round(self._corpus.places(items), 4).tolist(),
            "evaluations": int(walk.result.items_scored[0]),
            "stages_ms": walk.stages_ms,
        }

    def _compare(self, replay: Replay, asked: Asked, answer: list[int], evaluations: int) -> dict[str, Any]:
        start_s = time.perf_counter()
        person = replay.person(asked)
        every, shown = replay.every_score(person), replay.shown(person)
        exact, usual = exhaustive(every, shown), cascade(every, shown, evaluations)
        # Asked for, not come: an answer that is too short misses items too.
        served, top_k = np.array(answer, np.int32), person.params.top_k
        return {
            "exhaustive": self._listed(exact, every.deep, exact, served, top_k),
            "cascade": None if usual is None else self._listed(usual, every.deep, exact, served, top_k),
            "milliseconds": 1e3 * (time.perf_counter() - start_s),
        }

    def _listed(
        self, ranked: RankedList, scores: Float32Array, exact: RankedList, served: Int32Array, top_k: int
    ) -> dict[str, Any]:
        """A list's first K items, the places of the answer's items in it, and coverage of the exact K."""
        best = ranked.items[:top_k]
        described = self._corpus.described(best.tolist())
        return {
            "items": [{**each, "score": float(scores[each["item"]])} for each in described],
            "ranks": [ranked.rank(item) for item in served.tolist()],
            "coverage": exact.coverage(best, top_k),
            "answer_coverage": ranked.coverage(served, top_k),
        }


def with_scheme(address: str) -> str:
    """The URL of host:port; one that is a URL stays."""
    return (address if "://" in address else f"http://{address}").rstrip("/")


def _read_metrics(address: str, trust: Tls | None) -> str:
    url = f"{with_scheme(address).removesuffix('/metrics')}/metrics"
    try:
        context = trust.context() if trust is not None and url.startswith("https:") else None
        with urllib.request.urlopen(url, timeout=_METRICS_TIMEOUT_S, context=context) as response:
            return str(response.read().decode())
    except (urllib.error.URLError, OSError, ValueError) as error:
        raise ServerUnavailable(
            f"no metrics at {address} ({error}); expected those of `nann serve`: check --metrics-url"
        ) from error
