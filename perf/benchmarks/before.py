"""Another installation against this one: the same bundle behind both, asked in turns, as before and after a change."""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nann.errors import ConfigError, ServerError

from ...python_backend.server.ports import free_ports
from ...python_backend.server.served_form import INSTANCES_VARIABLE, STEPS_VARIABLE
from ...training.reports.text import percent, table
from ..benchmark import Benchmark, BenchSettings, Json, Say
from ..corpora.asked_users import AskedUsers, asked_users
from ..load.perf_analyzer import Load, LoadPoint, run_perf_analyzer
from ..load.perf_analyzer_install import PerfAnalyzer, find_perf_analyzer
from .served import describe

NAME = "before"
CLIENTS = (1, 16)
_BLOCK_WINDOW_S = 1.0
"""Of a block: short, so that the two servers alternate quickly."""
_STOP_TIMEOUT_S = 60


@dataclass(frozen=True)
class Form:
    """How this installation serves.

    Attributes:
        words: for people.
        options: of `nann serve`.
        calls_scorer: whether its searches call the model `scorer`.
    """

    words: str
    options: tuple[str, ...]
    calls_scorer: bool


FORMS = {
    "bls": Form("the scorer is called by BLS", ("--steps", "two"), True),
    "fastest": Form("all in one process", ("--steps", "one"), False),
}


def run(settings: BenchSettings, say: Say) -> Json:
    """Both corpora, each form in turns with the other installation."""
    if settings.before is None:
        raise ConfigError(f"the benchmark {NAME} needs --before, the command `nann` of another installation")
    result: Json = {}
    for name, corpus in settings.corpora.items():
        asked = asked_users(corpus, settings.users, settings.cache)
        result[name] = {"items": asked.bundle.item_count, "search": describe(asked.bundle.search_params)}
        for form in FORMS:
            say(f"{NAME}: {name} corpus, {FORMS[form].words}")
            result[name][form] = _compared(asked, corpus.bundle, settings.before, form, settings)
    return result


def _compared(asked: AskedUsers, bundle: Path, before: Path, form: str, settings: BenchSettings) -> Json:
    """Blocks of requests to the server of before and to this one, in turns; one client, then several."""
    tool, folder = find_perf_analyzer(), settings.cache / NAME
    ours = FORMS[form]
    with (
        _serving([str(before)], bundle, folder / "before") as old,
        _serving([sys.executable, "-m", "nann"], bundle, folder / form, *ours.options) as new,
    ):
        sides = {"before": (old, True), "after": (new, ours.calls_scorer)}
        points: dict[int, dict[str, list[LoadPoint]]] = {}
        for clients in CLIENTS:
            for url, calls_scorer in sides.values():  # untimed
                _block(tool, url, asked, clients, calls_scorer)
            points[clients] = {side: [] for side in sides}
            for _ in range(settings.repeats):
                for side, (url, calls_scorer) in sides.items():
                    points[clients][side].append(_block(tool, url, asked, clients, calls_scorer))
    return summary(asked, points)


def _block(tool: PerfAnalyzer, url: str, asked: AskedUsers, clients: int, calls_scorer: bool) -> LoadPoint:
    load = Load(concurrency=clients)
    return run_perf_analyzer(tool, url, asked.histories, load, _BLOCK_WINDOW_S, calls_scorer=calls_scorer)


def summary(asked: AskedUsers, points: Mapping[int, Mapping[str, Sequence[LoadPoint]]]) -> Json:
    """Times and quality of both sides, and the medians over the pairs of blocks of this side over the other.

    Args:
        asked: the users.
        points: by number of clients and side ("before" and "after"): one for each block, in the order of the turns.
    """
    alone, together = (points[clients] for clients in CLIENTS)
    p50 = {side: [block.percentile_ms(50) for block in blocks] for side, blocks in alone.items()}
    qps = {side: [block.qps for block in blocks] for side, blocks in together.items()}
    body: Json = {
        "p50_ratios": _ratios(p50),
        "throughput_ratios": _ratios(qps),
        "equal_items": _equal_items(*([each for block in alone[side] for each in block.answers] for side in alone)),
    }
    for side in alone:
        blocks = (alone[side], together[side])
        latencies = [[answer.latency_ms for block in each for answer in block.answers] for each in blocks]
        body[side] = {
            "p50_ms": statistics.median(p50[side]),
            "p99_ms": float(np.percentile(latencies[0], 99)),
            "qps": statistics.median(qps[side]),
            "loaded_p50_ms": float(np.percentile(latencies[1], 50)),
            "loaded_p99_ms": float(np.percentile(latencies[1], 99)),
            **asked.quality([answer for block in alone[side] for answer in block.answers]),
        }
    return body


def _ratios(values: Mapping[str, Sequence[float]]) -> list[float]:
    return [after / before for before, after in zip(values["before"], values["after"], strict=True)]


def _equal_items(before: Sequence[Any], after: Sequence[Any]) -> float:
    """Share of the items that both give, of the users whom both have answered."""
    lists = [{answer.behavior_item_ids: set(answer.item_ids) for answer in side} for side in (before, after)]
    both = lists[0].keys() & lists[1].keys()
    return statistics.fmean(len(lists[0][user] & lists[1][user]) / max(1, len(lists[0][user])) for user in both)


@contextmanager
def _serving(nann: Sequence[str], bundle: Path, folder: Path, *options: str) -> Iterator[str]:
    """A server of an installation, with its files in this folder, which is made anew; its gRPC address.

    Raises:
        ServerError: with its last words, if it does not start.
    """
    http, grpc, metrics = free_ports(3)
    shutil.rmtree(folder, ignore_errors=True)  # a repository of before would serve the bundle of before
    folder.mkdir(parents=True)
    ports = ("--http-port", http, "--grpc-port", grpc, "--metrics-port", metrics)
    files = ("--bundle", bundle.absolute(), "--repository", folder / "repository", "--log-file", folder / "log")
    command = [*nann, "serve", "--json", *map(str, (*files, *ports)), *options]
    environment = {
        name: value for name, value in os.environ.items() if name not in (STEPS_VARIABLE, INSTANCES_VARIABLE)
    }
    with (folder / "words").open("w+") as words:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=words, text=True, env=environment)
        try:
            assert process.stdout is not None
            ready = process.stdout.readline()
            if not ready:
                words.seek(0)
                raise ServerError(f"{' '.join(command)} did not start: {' '.join(words.read().split())[-400:]}")
            yield str(json.loads(ready)["grpc"])
        finally:
            process.terminate()
            process.communicate(timeout=_STOP_TIMEOUT_S)


def _markdown(result: Json) -> str:
    rows = [
        [
            f"{one['items']:,} items, {one['search']}",
            FORMS[form].words,
            *(f"{one[form][side]['p50_ms']:.2f}" for side in ("before", "after")),
            _spread(one[form]["p50_ratios"]),
            *(f"{one[form][side]['qps']:.0f}" for side in ("before", "after")),
            _spread(one[form]["throughput_ratios"]),
            *(percent(one[form][side]["coverage"]) for side in ("before", "after")),
            percent(one[form]["equal_items"]),
            *(f"{one[form][side]['p99_ms']:.1f}" for side in ("before", "after")),
        ]
        for one in result.values()
        for form in FORMS
    ]
    sides = ("before", "after")
    header = [
        "corpus and search",
        "this installation",
        *(f"p50 ms {side}" for side in sides),
        "ratio",
        *(f"QPS {side}" for side in sides),
        "throughput ratio",
        *(f"coverage@K {side}" for side in sides),
        "equal items",
        *(f"p99 ms {side}" for side in sides),
    ]
    return (
        "Another installation of `nann` (--before) and this one serve the same bundle on this machine. Blocks of "
        f"requests to both alternate, with one client (p50, p99), then with {CLIENTS[-1]} (QPS). Ratios are of this "
        "installation over the other: the median over the pairs of blocks (least to most).\n\n"
        f"{table(header, rows)}"
    )


def _spread(ratios: Sequence[float]) -> str:
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


def _headline(result: Json) -> dict[str, Json]:
    return {
        f"served_{name}_{key}_ratio": {form: statistics.median(one[form][f"{key}_ratios"]) for form in FORMS}
        for name, one in result.items()
        for key in ("p50", "throughput")
    }


BENCHMARK = Benchmark(NAME, "Before and after", run, _markdown, headline=_headline)
