"""What conditions cost a served request: `exclude_history`, lists and filters, of one client and of several."""

from __future__ import annotations

import itertools
import statistics
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nann.bundle import Bundle
from nann.errors import ConfigError
from nann.filters import where
from nann.filters.columns import CATEGORY, CategoryColumn

from ...clients import RetrievalClient
from ...training.reports.text import table
from ..benchmark import Benchmark, BenchSettings, Json, Say
from ..corpora.asked_users import asked_users
from ..servers.serving import install, serving
from ..servers.triton_counters import breakdown, read_metrics
from .served import describe

NAME = "filters"
CLIENTS = 8
SHARES = (0.5, 0.1, 0.01)
"""Shares of the corpus that the filters of one client match, about."""
_TOGETHER = 0.5
"""The share for several clients."""
_DENIED, _ALLOWED = 200, 5000
_MOST_VALUES = 1000
_TIMEOUT_S = 60.0
_SLACK = 1.05

NONE, AGAIN, HISTORY, ONE, EACH = "none", "none, again", "exclude_history", "one filter", "a filter each"
Conditions = Mapping[str, Any]
"""Keyword arguments of `RetrievalClient.retrieve`."""


def run(settings: BenchSettings, say: Say) -> Json:
    """The corpus of real data, whose items have attributes; conditions take turns request by request."""
    asked = asked_users(settings.real, settings.users, settings.cache)
    bundle = asked.bundle
    single, several = one_clients_conditions(bundle), several_clients_conditions(bundle)
    with serving(install(bundle.path, settings.cache / NAME)) as server:
        say(f"{NAME}: one client, {', '.join(single)}")
        with RetrievalClient(server.grpc_url, timeout_s=_TIMEOUT_S) as client:
            alone = one_by_one(client, asked.histories, single, settings.repeats)
        say(f"{NAME}: {CLIENTS} clients, {', '.join(several)}")
        together = _together(server.grpc_url, server.metrics_url, asked.histories, several, settings)
    return {
        "items": bundle.item_count,
        "search": describe(bundle.search_params),
        "clients": CLIENTS,
        "one": alone,
        "together": together,
    }


def one_clients_conditions(bundle: Bundle) -> dict[str, Conditions]:
    """What one client asks for in turn."""
    rng = np.random.default_rng(0)
    ids = bundle.item_ids
    denied, allowed = (rng.choice(ids, min(count, len(ids)), replace=False) for count in (_DENIED, _ALLOWED))
    return {
        NONE: {},
        AGAIN: {},
        HISTORY: {"exclude_history": True},
        f"{len(denied):,} excluded ids": {"exclude_item_ids": denied},
        f"{len(allowed):,} allowed ids": {"allow_item_ids": allowed},
        **{f"filter, {share:.0%} match": {"filter": category_filter(bundle, share)} for share in SHARES},
    }


def several_clients_conditions(bundle: Bundle) -> dict[str, list[Conditions]]:
    """What each of several clients asks for at the same time."""
    filters = [category_filter(bundle, _TOGETHER, but=place) for place in range(CLIENTS)]
    return {
        NONE: [{}] * CLIENTS,
        HISTORY: [{"exclude_history": True}] * CLIENTS,
        ONE: [{"filter": filters[0]}] * CLIENTS,
        EACH: [{"filter": text} for text in filters],
    }


def category_filter(bundle: Bundle, share: float, but: int | None = None) -> str:
    """The largest values that together match about a share of the items, of the category with the most of them.

    Args:
        bundle: with attributes.
        share: of the items.
        but: place of a value, from the largest, that is left out; None: none is.

    Raises:
        ConfigError: if no attribute is a category.
    """
    columns = {} if bundle.attributes is None else bundle.attributes.columns
    categories = {
        name: column
        for name, column in columns.items()
        if isinstance(column, CategoryColumn) and column.type == CATEGORY and len(column.vocabulary) <= _MOST_VALUES
    }
    if not categories:
        raise ConfigError(
            f"the items of {bundle.path} have no category of at most {_MOST_VALUES:,} values to filter by; prepare the "
            "data set with a table of items, and index again"
        )
    name, column = max(categories.items(), key=lambda one: len(one[1].vocabulary))
    counts = np.diff(column.indptr)
    wanted, found, values = share * bundle.item_count, 0, []
    for place, value in enumerate(np.argsort(-counts, kind="stable").tolist()):
        if place != but and found < wanted and found + counts[value] <= _SLACK * wanted:
            found += int(counts[value])
            values.append(column.vocabulary[value].decode())
    return where(name).is_in(values).text


def one_by_one(
    client: RetrievalClient, histories: Sequence[Sequence[int]], conditions: Mapping[str, Conditions], repeats: int
) -> Json:
    """Each user asks under each of the conditions in turn, so that all of them meet the same noise.

    The ratio is the median over a user's latencies, each divided by the one without conditions beside it.
    """
    timed = {name: _Timed() for name in conditions}
    names = list(conditions)
    for name in names:  # untimed: filters are compiled
        client.retrieve(histories[0], **conditions[name])
    for number, (_, history) in enumerate(itertools.product(range(repeats), histories)):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            timed[name].ask(client, history, conditions[name])
    base = np.array(timed[NONE].latencies_ms)
    return {name: {**one.summary(), "ratio": _ratio(one.latencies_ms, base)} for name, one in timed.items()}


def _ratio(latencies_ms: Sequence[float], base_ms: Any) -> float:
    return float(np.median(np.array(latencies_ms) / base_ms))


@dataclass
class _Timed:
    """Requests of one client."""

    latencies_ms: list[float] = field(default_factory=list)
    items_scored: list[int] = field(default_factory=list)
    items_matching: list[int] = field(default_factory=list)

    def ask(self, client: RetrievalClient, history: Sequence[int], conditions: Conditions) -> None:
        start_ns = time.perf_counter_ns()
        answer = client.retrieve(history, **conditions)
        self.latencies_ms.append((time.perf_counter_ns() - start_ns) / 1e6)
        self.items_scored.append(int(answer.items_scored[0]))
        self.items_matching.append(int(answer.items_matching[0]))

    def summary(self) -> dict[str, float]:
        return {
            "requests": len(self.latencies_ms),
            "p50_ms": float(np.percentile(self.latencies_ms, 50)),
            "p99_ms": float(np.percentile(self.latencies_ms, 99)),
            "items_matching": statistics.fmean(self.items_matching),
            "items_scored": statistics.fmean(self.items_scored),
        }


def _together(
    grpc_url: str,
    metrics_url: str,
    histories: Sequence[Sequence[int]],
    conditions: Mapping[str, Sequence[Conditions]],
    settings: BenchSettings,
) -> Json:
    """Windows of a closed loop of several clients; the conditions take turns window by window."""
    windows: dict[str, list[dict[str, float]]] = {name: [] for name in conditions}
    with ExitStack() as stack, ThreadPoolExecutor(CLIENTS) as pool:
        clients = [stack.enter_context(RetrievalClient(grpc_url, timeout_s=_TIMEOUT_S)) for _ in range(CLIENTS)]
        for number in range(settings.repeats + 1):  # the first is untimed
            for name, each in conditions.items():
                before, start_s = read_metrics(metrics_url), time.monotonic()
                stop = threading.Event()
                timer = threading.Timer(settings.window_s, stop.set)
                timer.start()
                asking = [
                    pool.submit(_ask_until, stop, client, [*histories[place:], *histories[:place]], asked)
                    for place, (client, asked) in enumerate(zip(clients, each, strict=True))
                ]
                timed = [future.result() for future in asking]
                seconds = time.monotonic() - start_s
                counted = breakdown(before, read_metrics(metrics_url))
                if number:
                    windows[name].append(_window(timed, seconds, counted["users_per_search"]))
    return {name: _compared(each, windows[NONE]) for name, each in windows.items()}


def _ask_until(
    stop: threading.Event, client: RetrievalClient, histories: Sequence[Sequence[int]], conditions: Conditions
) -> _Timed:
    timed = _Timed()
    for history in itertools.cycle(histories):
        timed.ask(client, history, conditions)
        if stop.is_set():
            break
    return timed


def _lists(timed: _Timed) -> tuple[list[Any], ...]:
    return timed.latencies_ms, timed.items_scored, timed.items_matching


def _window(clients: Sequence[_Timed], seconds: float, users_per_search: float) -> dict[str, float]:
    whole = _Timed(*(list(itertools.chain.from_iterable(each)) for each in zip(*map(_lists, clients), strict=True)))
    return {**whole.summary(), "qps": len(whole.latencies_ms) / seconds, "users_per_search": users_per_search}


def _compared(windows: Sequence[Mapping[str, float]], base: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The medians over the windows, and of their ratios to the windows without conditions beside them."""
    middle = {key: statistics.median(one[key] for one in windows) for key in windows[0]}
    ratios = {
        f"{key}_ratio": statistics.median(one[key] / other[key] for one, other in zip(windows, base, strict=True))
        for key in ("p50_ms", "qps")
    }
    return {**middle, **ratios}


def _markdown(result: Json) -> str:
    alone = [
        [
            name,
            f"{one['items_matching']:,.0f}",
            f"{one['items_scored']:,.0f}",
            f"{one['p50_ms']:.2f}",
            f"{one['p99_ms']:.2f}",
            f"{one['ratio']:.3f}",
        ]
        for name, one in result["one"].items()
    ]
    together = [
        [
            name,
            f"{one['requests']:,.0f}",
            f"{one['users_per_search']:.1f}",
            f"{one['items_scored']:,.0f}",
            f"{one['qps']:.1f} ({one['qps_ratio']:.2f})",
            f"{one['p50_ms']:.1f} ({one['p50_ms_ratio']:.2f})",
        ]
        for name, one in result["together"].items()
    ]
    header = ["conditions", "items matching", "items scored", "p50 ms", "p99 ms", "ratio"]
    return (
        f"{result['items']:,} items, {result['search']}, as installed by default. One client: each user asks under "
        "each of the conditions in turn. A latency is divided by the one without conditions beside it; the ratio is "
        "the median. Without conditions is measured twice: the second ratio says how much is chance. A filter is a "
        f"list of values of a category, compiled before.\n\n{table(header, alone)}\n\n"
        f"{result['clients']} clients in a closed loop, in windows that take turns. Requests are those of a window; in "
        "parentheses the median ratio to "
        f"the window without conditions. A filter matches about {_TOGETHER:.0%} of the items; either all clients have "
        "the same one, or each its own.\n\n"
        f"{table(['conditions', 'requests', 'users per search', 'items scored', 'QPS', 'p50 ms'], together)}"
    )


def _headline(result: Json) -> dict[str, Json]:
    return {
        "exclude_history_over_none": result["one"][HISTORY]["ratio"],
        "filter_each_over_none": result["together"][EACH]["p50_ms_ratio"],
    }


BENCHMARK = Benchmark(NAME, "Filters and exclusions", run, _markdown, headline=_headline)
