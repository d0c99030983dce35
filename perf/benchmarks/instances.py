"""Instances, threads and cores: the throughput of each deployment, and the memory that it takes."""

from __future__ import annotations

import multiprocessing
import statistics
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial
from pathlib import Path
from typing import Any

from nann.errors import ConfigError

from ...python_backend.version_folder import ONE
from ...training.reports.plots import COLORS, figure
from ...training.reports.text import MISSING, percent, table
from ..benchmark import Benchmark, BenchSettings, Json, Say
from ..corpora.asked_users import AskedUsers, asked_users
from ..corpora.replay import Calls, record_calls
from ..load.perf_analyzer import Load, run_perf_analyzer
from ..load.perf_analyzer_install import PerfAnalyzer, find_perf_analyzer
from ..servers.process_memory import model_pss_mb
from ..servers.serving import Deployment, install, installed_scorer, pinned, serving, usable_cores

NAME = "instances"
CONCURRENCIES = (2, 8)
"""Each server is measured at both; its throughput is the better one."""
_ENGINE_USERS = 8

WORDS = {
    "one_core": "1 instance, 1 core",
    "one": "1 instance, 2 cores",
    "two_threads": "1 instance, 2 scorer threads, 2 cores",
    "two": "2 instances, 2 cores",
    "one_core_in_process": "1 instance, 1 core, scorer in process",
    "two_in_process": "2 instances, 2 cores, scorer in process",
    "one_core_of_one_step": "1 instance, 1 core, --steps one",
    "one_step": "1 instance, 2 cores, --steps one",
    "two_of_one_step": "2 instances, 2 cores, --steps one",
}


def deployments() -> dict[str, Deployment]:
    """The deployments to compare, on the first two usable cores.

    Raises:
        ConfigError: if there is only one core.
    """
    cores = usable_cores()
    if len(cores) < 2:
        raise ConfigError(f"the benchmark {NAME} compares one core with two; this process may use {len(cores)}")
    both = (cores[0], cores[1])
    return {
        "one_core": Deployment(1, 1, both[:1]),
        "one": Deployment(1, 1, both),
        "two_threads": Deployment(1, 2, both),
        "two": Deployment(2, 1, both),
        "one_core_in_process": Deployment(1, 1, both[:1], "in_process"),
        "two_in_process": Deployment(2, 1, both, "in_process"),
        "one_core_of_one_step": Deployment(1, 1, both[:1], steps=ONE),
        "one_step": Deployment(1, 1, both, steps=ONE),
        "two_of_one_step": Deployment(2, 1, both, steps=ONE),
    }


def run(settings: BenchSettings, say: Say) -> Json:
    """Measures every deployment in turn, several times, on the corpus of Table 1."""
    compared = deployments()
    tool = find_perf_analyzer()
    asked = asked_users(settings.table1, settings.users, settings.cache)
    measured: dict[str, list[dict[str, Any]]] = {name: [] for name in compared}
    for number in range(max(1, settings.repeats // 2)):
        for name, deployment in compared.items():
            say(f"{NAME}: {WORDS[name]}, round {number + 1}")
            repository = install(settings.table1.bundle, settings.cache / NAME / name, deployment)
            measured[name].append(_measure(tool, repository, deployment, asked, settings.window_s))
    servers = {name: _middle(several) for name, several in measured.items()}
    cores = compared["two"].cores or ()
    engine = engine_scaling(settings.cache / NAME / "two", asked, cores, max(1.0, settings.window_s))
    more = {model: mb - servers["one"]["pss_mb"][model] for model, mb in servers["two"]["pss_mb"].items()}
    return {
        "items": asked.bundle.item_count,
        "servers": servers,
        "two_instances_over_one": servers["two"]["qps"] / servers["one_core"]["qps"],
        "two_processes_over_one": servers["two_of_one_step"]["qps"] / servers["one_core_of_one_step"]["qps"],
        "engine_two_processes_over_one": engine,
        "extra_instance_pss_mb": more,
    }


def _measure(
    tool: PerfAnalyzer, repository: Path, deployment: Deployment, asked: AskedUsers, window_s: float
) -> dict[str, Any]:
    # perf_analyzer runs on the same cores: with a free core for it, a server on one core would look better than it is.
    with serving(repository, deployment.cores, steps=deployment.steps) as server, pinned(deployment.cores):
        ask = partial(run_perf_analyzer, tool, server.grpc_url, asked.histories, calls_scorer=deployment.calls_scorer)
        points = [ask(Load(concurrency=number), window_s) for number in CONCURRENCIES]
        memory = model_pss_mb(server.pid or 0)
    best = max(points, key=lambda point: point.qps)
    return {**best.summary(), **asked.quality(best.answers), "pss_mb": memory}


def _middle(several: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The run with the median throughput, and the throughputs of all runs."""
    ordered = sorted(several, key=lambda one: one["qps"])
    return {**ordered[len(ordered) // 2], "all_qps": [one["qps"] for one in several]}


def engine_scaling(repository: Path, asked: AskedUsers, cores: Sequence[int], seconds: float) -> float:
    """Throughput of the scorer alone in two processes on a core each, over that in one: no server, no search.

    Two instances can't do better: the cores share memory bandwidth and, if they are threads of one core, its units.
    """
    users = asked.offline(installed_scorer(repository))
    calls = record_calls(users, asked.bundle.search_params)[:_ENGINE_USERS]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(len(cores), mp_context=context) as pool:

        def searches(used: Sequence[int]) -> float:
            return sum(pool.map(_score_for, [(repository, calls, core, seconds) for core in used]))

        searches(cores)  # untimed: the processes start and load the scorer
        return statistics.median(searches(cores) / searches(cores[:1]) for _ in range(3))


def _score_for(job: tuple[Path, list[Calls], int, float]) -> float:
    """How many searches per second one core could make the scorer calls of."""
    repository, users, core, seconds = job
    with pinned([core]):
        scorer = _loaded(repository)
        end_s, done, start_s = time.perf_counter() + seconds, 0, time.perf_counter()
        while time.perf_counter() < end_s:
            for states, candidates in users[done % len(users)]:
                scorer.score(states, candidates)
            done += 1
        return done / (time.perf_counter() - start_s)


_loaded = cache(installed_scorer)
"""One scorer per process and repository."""


def _markdown(result: Json) -> str:
    base = result["servers"]["one_core"]["qps"]
    rows = [
        [
            WORDS[name],
            f"{one['qps']:.1f} ({min(one['all_qps']):.1f} to {max(one['all_qps']):.1f})",
            f"{one['qps'] / base:.2f}",
            f"{one['p50_ms']:.1f}",
            percent(one["coverage"]),
            percent(one["recall"]),
            f"{sum(one['pss_mb'].values()):,.0f}" if one["pss_mb"] else MISSING,
        ]
        for name, one in result["servers"].items()
    ]
    header = ["server", "QPS (least to most)", "over the first", "p50 ms", "coverage@K", "recall@K", "PSS MB"]
    more = result["extra_instance_pss_mb"]
    memory = ", ".join(f"{model} {mb:,.0f} MB" for model, mb in more.items())
    return (
        f"{result['items']:,} items, the paper's search, closed loop of 2 or 8 clients, whichever gives more "
        "throughput. perf_analyzer runs on the server's cores. An instance is one of beam_retrieval and one of scorer."
        f"\n\n{table(header, rows)}\n\n"
        f"Two instances on two cores answer {result['two_instances_over_one']:.2f} times as many requests as one on "
        f"one core; with --steps one, as `nann serve` chooses without a GPU, {result['two_processes_over_one']:.2f} "
        "times. The scorer alone, without server and search, makes "
        f"{result['engine_two_processes_over_one']:.2f} times as many calls in two processes on these cores as in "
        "one. That is about the most that a second core can give.\n\n"
        f"A further instance takes {sum(more.values()):,.0f} MB (PSS: shared pages count once): {memory}."
    )


def _plot(result: Json, path: Path) -> None:
    base = result["servers"]["one_core"]["qps"]
    names = [WORDS[name].replace(", ", ",\n") for name in result["servers"]]
    gains = [one["qps"] / base for one in result["servers"].values()]
    with figure(path, size=(10.0, 4.2)) as (axes,):
        bars = axes.bar(names, gains, color=COLORS[0], width=0.6)
        axes.bar_label(bars, [f"{gain:.2f}" for gain in gains], padding=-14, color="white")
        limit = result["engine_two_processes_over_one"]
        axes.axhline(limit, color=COLORS[1], linestyle="--", label=f"the scorer alone, two processes: {limit:.2f}")
        axes.set_ylabel("throughput, multiples of 1 instance on 1 core")
        axes.set_title("What a second core gives")
        axes.set_ylim(0, 1.2 * max(*gains, limit))
        axes.tick_params(axis="x", labelsize=8)
        axes.legend(loc="upper left")


def _headline(result: Json) -> dict[str, Json]:
    return {
        "two_instances_over_one": result["two_instances_over_one"],
        "two_processes_over_one": result["two_processes_over_one"],
        "extra_instance_pss_mb": sum(result["extra_instance_pss_mb"].values()),
    }


BENCHMARK = Benchmark(NAME, "Instances, threads and cores", run, _markdown, {"perf_instances.png": _plot}, _headline)
