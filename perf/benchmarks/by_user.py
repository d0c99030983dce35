"""Requests by user id against the same requests with their history: what reading the store costs."""

from __future__ import annotations

from collections.abc import Callable
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np

from nann.bundle import Bundle
from nann.errors import ServerError
from nann.histories import HISTORY_LIMIT, Events
from nann.histories.file_histories import write_histories

from ...clients import RetrievalClient, RetrievalResult
from ...python_backend.histories.opening import open_histories, record_address
from ...training.data.prepared import PreparedData, Queries
from ...training.reports.alternate import alternate
from ...training.reports.text import table
from ..benchmark import Benchmark, BenchSettings, Json, Say
from ..load.requests import unpadded
from ..servers.redis import redis_server
from ..servers.serving import install, serving

NAME = "by_user"
STORES = {"file": "a folder", "redis": "Redis on the same machine"}
"""Where histories are, in words."""


def run(settings: BenchSettings, say: Say) -> Json:
    """The real corpus, one request at a time: with the history, by id, in turn, for each store."""
    data, bundle = PreparedData.load(settings.real.data), Bundle.open(settings.real.bundle, ())
    queries = data.queries("test", bundle.sequence_length, settings.users)
    events = _events(data, queries)
    folder = settings.cache / NAME
    write_histories(folder / "histories", events)
    stores = {}
    with redis_server() as url:
        store = open_histories(url, 10.0)
        store.append(events)
        store.close()
        for name, address in (("file", str(folder / "histories")), ("redis", url)):
            say(f"{NAME}: {STORES[name]}")
            repository = install(settings.real.bundle, folder / name)
            record_address(repository, address)
            stores[name] = _measured(repository, queries, data, settings.repeats)
    lengths = np.diff(events.indptr)
    return {
        "items": bundle.item_count,
        "users": len(queries.users),
        "sequence_length": bundle.sequence_length,
        "stored_p50": float(np.median(lengths)),
        "stored_most": int(lengths.max()),
        "stores": stores,
    }


def _events(data: PreparedData, queries: Queries) -> Events:
    """What the users did before their ground truth: the store's answers are those to the shipped histories."""
    first, end = data.user_first[queries.users], data.user_targets["test"][queries.users, 0]
    first = np.maximum(first, end - HISTORY_LIMIT)
    rows = np.concatenate([np.arange(one, other) for one, other in zip(first, end, strict=True)])
    indptr = np.append(0, np.cumsum(end - first)).astype(np.int64)
    return Events(_ids(data, queries), indptr, np.arange(len(rows)), data.item_ids[data.behavior_items[rows]])


def _ids(data: PreparedData, queries: Queries) -> list[bytes]:
    return [str(data.user_ids[int(user)]).encode() for user in queries.users]


def _measured(repository: Path, queries: Queries, data: PreparedData, repeats: int) -> dict[str, Any]:
    histories, users = unpadded(queries.external_ids), _ids(data, queries)
    with serving(repository) as server, RetrievalClient(server.grpc_url) as client:
        for history, user in zip(histories, users, strict=True):
            _check_same(client.retrieve(history), client.retrieve(user_id=user.decode()))

        def asking(each: Callable[[Any], RetrievalResult], of: list[Any]) -> Callable[[], object]:
            turn = cycle(of)
            return lambda: each(next(turn))

        middle = alternate(
            {
                "shipped": asking(client.retrieve, histories),
                "by_id": asking(lambda user: client.retrieve(user_id=user.decode()), users),
            },
            repeats * len(users),
        )
    return {f"{name}_p50_ms": ms for name, ms in middle.items()} | {"more_ms": middle["by_id"] - middle["shipped"]}


def _check_same(shipped: RetrievalResult, by_id: RetrievalResult) -> None:
    if not np.array_equal(shipped.item_ids, by_id.item_ids) or by_id.stored_items[0] < 1:
        raise ServerError(f"the answer by id differs from the one to the history (stored_items {by_id.stored_items})")


def _markdown(result: Json) -> str:
    rows = [
        [STORES[name], f"{one['shipped_p50_ms']:.2f}", f"{one['by_id_p50_ms']:.2f}", f"{one['more_ms']:+.2f}"]
        for name, one in result["stores"].items()
    ]
    return (
        f"One request at a time, {result['items']:,} items, {result['users']} users: with the "
        f"{result['sequence_length']} newest behaviours in the request, and by user id, in turn. The store has up to "
        f"{result['stored_most']:,} behaviours of a user, half of the users have at least {result['stored_p50']:,.0f}, "
        "and all are read. Both get the same answers.\n\n"
        f"{table(['histories in', 'shipped p50 ms', 'by id p50 ms', 'more ms'], rows)}"
    )


def _headline(result: Json) -> dict[str, Json]:
    return {"by_id_more_ms": {name: one["more_ms"] for name, one in result["stores"].items()}}


BENCHMARK = Benchmark(NAME, "Users by id", run, _markdown, {}, _headline)
