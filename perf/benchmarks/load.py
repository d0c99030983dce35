"""Latency and throughput of the served ensemble under growing load, with the quality of the same answers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nann.errors import ServerError
from nann.signature import ENTRY_SEEDS

from ...python_backend.server.triton import TritonServer
from ...training.reports.plots import COLORS, MARKERS, figure, plain_log
from ...training.reports.text import listing
from ..benchmark import Benchmark, BenchSettings, Json, Say
from ..corpora.asked_users import AskedUsers, asked_users
from ..load.perf_analyzer import Load, run_perf_analyzer
from ..load.perf_analyzer_install import PerfAnalyzer, find_perf_analyzer
from ..servers.serving import install, serving
from ..servers.triton_counters import breakdown, read_metrics
from .served import describe

NAME = "load"
CONCURRENCIES = (1, 2, 4, 8, 16)
RATE_SHARES = (0.25, 0.5, 0.75, 0.9)
"""Request rates of the open loop, as shares of the best throughput of the closed loop."""
_COLUMNS = {
    "load": "{load}",
    "QPS": "{qps:.1f}",
    "p50 ms": "{p50_ms:.1f}",
    "p90 ms": "{p90_ms:.1f}",
    "p99 ms": "{p99_ms:.1f}",
    "users per search": "{users_per_search:.1f}",
    "items scored": "{items_scored:,.0f}",
    "coverage@K": "{coverage:.2%}",
    "recall@K": "{recall:.2%}",
}

Parameters = Mapping[str, int | str]
_QUEUE_FULL = "Exceeds maximum queue size"


def run(settings: BenchSettings, say: Say) -> Json:
    """Each corpus with the search that its bundle recommends; Table 1's also with `entry` seeds."""
    tool = find_perf_analyzer()
    results = []
    for name in ("table1", "real"):
        corpus = settings.corpora[name]
        asked = asked_users(corpus, settings.users, settings.cache)
        searches: list[Parameters] = [{}]
        if name == "table1" and ENTRY_SEEDS in asked.bundle.search_by_entry:
            searches.append({"entry": ENTRY_SEEDS})
        with serving(install(corpus.bundle, settings.cache / NAME / name)) as server:
            for parameters in searches:
                say(f"{NAME}: {name} corpus {' '.join(map(str, parameters.values()))}")
                results.append(_curve(tool, server, asked, parameters, settings.window_s, say))
    return results


def _curve(
    tool: PerfAnalyzer, server: TritonServer, asked: AskedUsers, parameters: Parameters, window_s: float, say: Say
) -> dict[str, Any]:
    bundle = asked.bundle
    params = bundle.search_by_entry[str(parameters["entry"])] if parameters else bundle.search_params

    def point(load: Load) -> dict[str, Any]:
        before = read_metrics(server.metrics_url)
        measured = run_perf_analyzer(tool, server.grpc_url, asked.histories, load, window_s, parameters)
        counted = breakdown(before, read_metrics(server.metrics_url))
        kept = {key: counted[key] for key in ("users_per_search", "scorer_calls_per_search")}
        return {**measured.summary(), **kept, **asked.quality(measured.answers)}

    closed = [point(Load(concurrency=number)) for number in CONCURRENCIES]
    best = max(one["qps"] for one in closed)
    opened = []
    for share in RATE_SHARES:
        rate = round(share * best, 2)
        try:
            opened.append(point(Load(request_rate=rate)))
        except ServerError as error:
            if _QUEUE_FULL not in str(error):
                raise
            say(f"{NAME}: the queue was full at {rate} requests per second; perf_analyzer then reports nothing")
            break
    return {"items": bundle.item_count, "search": describe(params), "closed": closed, "open": opened}


def _markdown(result: Json) -> str:
    parts = [
        "Closed loop: each client has one request outstanding. Waiting requests are searched in lockstep, with one "
        "scorer call per round for all of them (users per search). Open loop: requests come at random times (Poisson) "
        "at a given rate, whether or not earlier ones were answered; a rate at which the short queue refused some is "
        "left out. recall and coverage are those of the same answers."
    ]
    for curve in result:
        closed = ({**point, "load": f"{point['value']:.0f} clients"} for point in curve["closed"])
        opened = ({**point, "load": f"{point['value']:.1f} per second"} for point in curve["open"])
        parts.append(f"### {curve['items']:,} items, {curve['search']}\n\n{listing([*closed, *opened], _COLUMNS)}")
    return "\n\n".join(parts)


def _plot_curve(result: Json, path: Path) -> None:
    with figure(path, panels=2, size=(5.6, 4.6)) as panels:
        titles = {"closed": "Closed loop, 1 to 16 clients", "open": "Open loop, Poisson arrivals"}
        for axes, (loop, title) in zip(panels, titles.items(), strict=True):
            for curve, color, marker in zip(result, COLORS, MARKERS, strict=False):
                qps = [point["qps"] for point in curve[loop]]
                style = {"color": color, "marker": marker, "markersize": 5}
                words = f"{curve['items']:,} items, {_entry(curve)}, coverage {curve['closed'][-1]['coverage']:.0%}"
                axes.plot(qps, [point["p50_ms"] for point in curve[loop]], label=words, **style)
                axes.plot(qps, [point["p99_ms"] for point in curve[loop]], linestyle=":", **style)
            plain_log(axes, "y")
            axes.set_xlim(left=0)
            axes.set_xlabel("throughput [requests/s]")
            axes.set_ylabel("latency [ms], p50 (dotted: p99)")
            axes.set_title(title)
        panels[0].legend(fontsize=7)


def _plot_lockstep(result: Json, path: Path) -> None:
    with figure(path, size=(6.4, 4.4)) as (axes,):
        for curve, color, marker in zip(result, COLORS, MARKERS, strict=False):
            alone = curve["closed"][0]["qps"]
            users = [point["users_per_search"] for point in curve["closed"]]
            gains = [point["qps"] / alone for point in curve["closed"]]
            words = f"{curve['items']:,} items, {_entry(curve)}"
            axes.plot(users, gains, color=color, marker=marker, label=words)
        axes.set_xlabel("users in a search (mean, closed loop of 1 to 16 clients)")
        axes.set_ylabel("throughput, multiples of one client's")
        axes.set_title("What searching in lockstep gives")
        axes.set_ylim(bottom=0)
        axes.legend(fontsize=8)


def _entry(curve: Json) -> str:
    return "by seeds" if "seeds" in curve["search"] else "by layers"


BENCHMARK = Benchmark(
    NAME,
    "Latency and throughput",
    run,
    _markdown,
    {"perf_latency_throughput.png": _plot_curve, "perf_lockstep.png": _plot_lockstep},
)
