"""A corpus that changes: how soon a new item is found, what the added items cost, and that deleted ones stay away."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nann.bundle import Bundle
from nann.scorer import Float32Array

from ...clients import RetrievalClient
from ...python_backend.server.triton import TritonServer
from ...training.reports.text import table
from ...training.search.planted import planted_vectors
from ...training.search.planted_bundle import planted_bundle
from ..benchmark import Benchmark, BenchSettings, Json, Say
from ..load.changing import Deletions, Histories, NewItems, Searching, upsert
from ..servers.serving import install, serving
from .served import describe

NAME = "catalog"
CLIENTS, PROBERS = 4, 2
UPSERTS_PER_S, DELETES_PER_S = 100.0, 20.0
ADDED_SHARE = 0.01
"""The most that may be added by default."""
DELETING = {"top_k": 20, "seeds": 40, "seed_ef": 40, "ef": (40,), "rounds": (2,)}
"""What the searches beside deletions ask for: little, so that there are many of them."""
_HISTORY, _USERS_PER_REQUEST, _AT_ONCE = 3, 16, 500


@dataclass(frozen=True)
class Sizes:
    """How much is measured.

    Attributes:
        items: of each corpus.
        new: items that come one after the other while a client looks for them, at most.
        searches: users who are answered while items are deleted from the first corpus.
    """

    items: Sequence[int] = (68_509, 1_000_000)
    new: int = 1_000
    searches: int = 100_000


def run(settings: BenchSettings, say: Say) -> Json:
    """Planted corpora: every scorer with item rows takes new items alike, and its cost is not the question."""
    return measure(settings.cache, Sizes(), settings.users, settings.repeats, say)


def measure(cache: Path, sizes: Sizes, users: int, repeats: int, say: Say) -> Json:
    """One entry for each corpus, and `deletes` of the first."""
    corpora, deletes = [], None
    for items in sizes.items:
        say(f"{NAME}: {items:,} items")
        bundle = planted_bundle(cache / NAME / f"bundle-{items}", cache / "growth", items)
        changed, *unchanged = (install(bundle.path, cache / NAME / name) for name in ("changed", "empty", "again"))
        with serving(changed) as server:
            found = _added(server, bundle, sizes.new, say)
            say(f"{NAME}: with and without added items, in turn")
            with serving(unchanged[0]) as empty, serving(unchanged[1]) as again:
                servers = {"full": server, "empty": empty, "again": again}
                corpora.append({**found, **compare(servers, histories(bundle, users, 1)[0], repeats)})
            if deletes is None:
                say(f"{NAME}: deletions beside {sizes.searches:,} searches")
                deletes = _deleted(server, bundle, users, sizes.searches)
    return {
        "search": describe(bundle.search_params),
        "clients": CLIENTS,
        "probers": PROBERS,
        "corpora": corpora,
        "deletes": deletes,
    }


def histories(bundle: Bundle, users: int, seed: int) -> tuple[Histories, Float32Array]:
    """Random histories, and for each the vector of unit length (`float32[M, d]`) that its user likes best."""
    drawn = np.random.default_rng(seed).integers(0, bundle.item_count, (users, _HISTORY))
    wishes = np.asarray(bundle.item_vectors)[drawn].mean(axis=1)
    return (drawn + 1).tolist(), wishes / np.linalg.norm(wishes, axis=1, keepdims=True)


def _added(server: TritonServer, bundle: Bundle, most_new: int, say: Say) -> Json:
    """Adds as many items as may be; clients look for the last ones while others search."""
    count, first = round(ADDED_SHARE * bundle.item_count), bundle.item_count + 1
    new = min(most_new, count)
    before = planted_vectors(0, count, seed=2)[: count - new]
    for start in range(0, len(before), _AT_ONCE):
        part = before[start : start + _AT_ONCE]
        upsert(server.control, range(first + start, first + start + len(part)), part)
    asked, wishes = histories(bundle, new, 3)
    items = NewItems(range(first + len(before), first + count), wishes, asked, UPSERTS_PER_S)
    say(f"{NAME}: {new:,} new items after {len(before):,}, {UPSERTS_PER_S:g} a second")
    with Searching(server.grpc_url, histories(bundle, 100, 4)[0]).running(CLIENTS) as latencies_ms:
        started_s = time.monotonic()
        found_ms, upserts_ms, per_s = items.watched(server.control, server.grpc_url, PROBERS)
        searches_per_s = len(latencies_ms) / (time.monotonic() - started_s)
    return {
        "items": bundle.item_count,
        "added": count,
        "watched": len(found_ms),
        "upserts_per_s": per_s,
        **_percentiles("retrievable", found_ms),
        **_percentiles("upsert", upserts_ms),
        **_percentiles("beside", latencies_ms),
        "searches_per_s": searches_per_s,
    }


def _percentiles(name: str, values: Sequence[float]) -> dict[str, float]:
    p50, p99 = np.percentile(values, (50, 99))
    return {f"{name}_p50_ms": float(p50), f"{name}_p99_ms": float(p99)}


def compare(servers: Mapping[str, TritonServer], asked: Histories, repeats: int) -> Json:
    """Each user asks each server in turn. Two have no added items: the second one's ratio says how much is chance.

    No server is asked twice in a row: it would find its own data in the CPU's caches, and the others would not.
    """
    timed: dict[str, list[float]] = {name: [] for name in servers}
    with ExitStack() as stack:
        clients = {name: stack.enter_context(RetrievalClient(each.grpc_url)) for name, each in servers.items()}
        for client in clients.values():  # untimed
            client.retrieve(asked[0])
        for history in [*asked] * repeats:
            for name, client in clients.items():
                start_ns = time.perf_counter_ns()
                client.retrieve(history)
                timed[name].append((time.perf_counter_ns() - start_ns) / 1e6)
    p50 = {name: float(np.median(values)) for name, values in timed.items()}
    return {
        **{f"{name}_p50_ms": value for name, value in p50.items()},
        "full_over_empty": p50["full"] / p50["empty"],
        "again_over_empty": p50["again"] / p50["empty"],
        "requests": len(timed["full"]),
    }


def _deleted(server: TritonServer, bundle: Bundle, users: int, searches: int) -> Json:
    deletions = Deletions(server.control)
    asked, _ = histories(bundle, users, 3)  # of the first new items
    load = Searching(server.grpc_url, asked, _USERS_PER_REQUEST, dict(DELETING), deletions.look)
    start_s = time.monotonic()
    with load.running(CLIENTS):
        deletions.run(searches, DELETES_PER_S)
    return {
        "items": bundle.item_count,
        "searches": deletions.searches,
        "searches_per_s": deletions.searches / (time.monotonic() - start_s),
        "deleted": len(deletions.acknowledged_ns),
        "deleted_of_added": sum(item > bundle.item_count for item in deletions.acknowledged_ns),
        "returned": deletions.returned,
    }


def _markdown(result: Json) -> str:
    corpora, deletes = result["corpora"], result["deletes"]
    return (
        "Planted vectors (as in the growth of the corpus) and a scorer of inner products that takes item rows, "
        f"{result['search']}, as installed by default. Items are added until they are {ADDED_SHARE:.0%} of the corpus. "
        f"The last ones come at {UPSERTS_PER_S:g} a second beside {result['clients']} clients in a closed loop. Each "
        f"is the best item of a user, and {result['probers']} further clients ask as fast as they can for the users of "
        "as many of them as they are able to watch, several in a request. Retrievable: from the begin of the request "
        f"that adds an item to the end of the first answer with it.\n\n{_found_table(corpora)}\n\n"
        "What the added items cost: one client asks a server with all of them and two servers without any in turn; "
        "p50. The last column is the second of these over the first: it says how much is chance.\n\n"
        f"{_cost_table(corpora)}\n\n"
        f"Deletions: {deletes['deleted']:,} items, {deletes['deleted_of_added']:,} of them added ones, are deleted "
        f"beside {deletes['searches']:,} searches ({deletes['searches_per_s']:,.0f} a second, {_USERS_PER_REQUEST} "
        f"users in a request, {result['clients']} clients, {deletes['items']:,} items). Each is the best item of a "
        f"user who was answered last. Answers to searches that began after the acknowledgement hold "
        f"{deletes['returned']:,} of them."
    )


_FOUND_MS = ("retrievable_p50_ms", "retrievable_p99_ms", "upsert_p50_ms", "upsert_p99_ms")


def _found_table(corpora: Sequence[Json]) -> str:
    columns = ["items", "added", "upserts/s", "watched", "retrievable p50 ms", "retrievable p99 ms"]
    columns += ["upsert p50 ms", "upsert p99 ms", "searches/s beside", "their p50 ms"]
    rows = [
        [
            f"{one['items']:,}",
            f"{one['added']:,}",
            f"{one['upserts_per_s']:.1f}",
            f"{one['watched']:,}",
            *(f"{one[key]:.1f}" for key in _FOUND_MS),
            f"{one['searches_per_s']:.1f}",
            f"{one['beside_p50_ms']:.1f}",
        ]
        for one in corpora
    ]
    return table(columns, rows)


def _cost_table(corpora: Sequence[Json]) -> str:
    rows = [
        [
            f"{one['items']:,}",
            f"{one['added']:,}",
            f"{one['requests']:,}",
            f"{one['empty_p50_ms']:.2f}",
            f"{one['full_p50_ms']:.2f}",
            f"{one['full_over_empty']:.3f}",
            f"{one['again_over_empty']:.3f}",
        ]
        for one in corpora
    ]
    return table(["items", "added", "requests", "without ms", "with ms", "ratio", "without, again"], rows)


def _headline(result: Json) -> dict[str, Json]:
    return {
        "full_delta_over_empty": max(one["full_over_empty"] for one in result["corpora"]),
        "insert_to_retrievable_p99_ms": max(one["retrievable_p99_ms"] for one in result["corpora"]),
        "deleted_items_returned": result["deletes"]["returned"],
    }


BENCHMARK = Benchmark(NAME, "A corpus that changes", run, _markdown, headline=_headline)
