"""Served latency against the scorer's own time: how much of a request is not scoring, and where it goes."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nann.kernels import core_count
from nann.search_params import SearchParams
from nann.signature import BEAM_RETRIEVAL, ENSEMBLE, FEATURE_TRANSFORM, SCORER, USER_ENCODER

from ...python_backend.server.triton import TritonServer
from ...training.reports.plots import COLORS, figure
from ...training.reports.text import percent, table
from ..benchmark import Benchmark, BenchSettings, Json, Say
from ..corpora.asked_users import AskedUsers, asked_users
from ..corpora.replay import Calls, plain_ms, record_calls, scored
from ..load.perf_analyzer import Answer, Load, LoadPoint, run_perf_analyzer
from ..load.perf_analyzer_install import find_perf_analyzer
from ..servers.hops import empty
from ..servers.serving import Deployment, install, installed_scorer, serving
from ..servers.triton_counters import breakdown, read_metrics

NAME = "served"
_BLOCK_WINDOW_S = 1.0
"""Of a served block: as short as holds a score of requests, so that served and plain blocks alternate quickly."""
STAGES = {
    "scorer": "scorer: scoring",
    "scorer_call": "scorer: queue, tensors in and out",
    "walk": "beam_retrieval: walking the graph",
    "bls": "beam_retrieval: making the calls",
    "beam_io": "beam_retrieval: queue, tensors in and out",
    "encoder": "user_encoder",
    "features": "feature_transform",
    "around": "ensemble, gRPC and client",
}
"""Key and words of every part of a served request; together they are all of it."""
PLACES = {"bls": "scorer called by BLS", "in_process": "scorer in process"}
_BY_BLS = {"": Deployment(threads=1, scorer="bls")}
_ONE_THREAD = {**_BY_BLS, "_in_process": Deployment(threads=1, scorer="in_process")}


def run(settings: BenchSettings, say: Say) -> Json:
    """Both corpora at concurrency 1: one thread scores, called by BLS or in the search's process; and all cores do."""
    deployments = dict(_ONE_THREAD)
    if (cores := core_count()) > 1:
        deployments["_all_cores"] = Deployment(threads=cores, scorer="bls")
    result = _measured("table1", settings.table1, settings.table1_data, deployments, settings, say)
    return {**result, **_measured("real", settings.real, settings.real_data, deployments, settings, say)}


def run_by_bls(settings: BenchSettings, say: Say) -> Json:
    """Of that, what the regression gate compares: one thread, called by BLS, in the paper's setting."""
    return _measured("table1", settings.table1, settings.table1_data, _BY_BLS, settings, say)


def _measured(
    name: str, bundle: Path, data: Path, deployments: Mapping[str, Deployment], settings: BenchSettings, say: Say
) -> Json:
    """One corpus, served in each way."""
    asked, result = asked_users(bundle, data, settings.users, settings.cache), {}
    for suffix, deployment in deployments.items():
        how = {"scorer": deployment.scorer, "threads": deployment.threads}
        say(f"{NAME}: {name} corpus, {_words(how)}")
        repository = install(bundle, settings.cache / NAME / name, deployment)
        result[name + suffix] = {**how, **measure(asked, repository, deployment, settings)}
    return result


def measure(asked: AskedUsers, repository: Path, deployment: Deployment, settings: BenchSettings) -> dict[str, Any]:
    """Served and plain blocks in turn, for the search that the bundle recommends, and a server without any work.

    The repository is so deployed, and its models are emptied for the latter.
    """
    params, tool = asked.bundle.search_params, find_perf_analyzer(settings.perf_analyzer)

    def one_client(server: TritonServer, window_s: float) -> LoadPoint:
        load, calls_scorer = Load(concurrency=1), deployment.calls_scorer
        return run_perf_analyzer(tool, server.grpc_url, asked.histories, load, window_s, calls_scorer=calls_scorer)

    users = asked.offline(installed_scorer(repository, deployment.threads or 1))
    calls = record_calls(users, params)
    blocks: list[dict[str, float]] = []
    points: list[LoadPoint] = []
    with serving(repository) as server:
        before = read_metrics(server.metrics_url)
        for _ in range(settings.repeats):
            points.append(one_client(server, _BLOCK_WINDOW_S))
            plain = statistics.median(plain_ms(users.scorer, _asked_calls(asked, calls, points[-1].answers)))
            served = points[-1].percentile_ms(50)
            blocks.append({"served_p50_ms": served, "plain_p50_ms": plain, "ratio": served / plain})
        counted = breakdown(before, read_metrics(server.metrics_url))
    empty(repository, asked.bundle, calls, calls_scorer=deployment.calls_scorer)
    with serving(repository) as server:
        hops = one_client(server, settings.window_s)
    answers = [answer for point in points for answer in point.answers]
    client_ms = statistics.fmean(answer.latency_ms for answer in answers)
    offline = users.stages_ms(params, 1, len(users.batch))
    middle = {key: statistics.median(block[key] for block in blocks) for key in ("served_p50_ms", "plain_p50_ms")}
    return {
        "items": asked.bundle.item_count,
        "search": describe(params),
        "items_scored": statistics.fmean(answer.items_scored for answer in answers),
        "replayed_items_scored": statistics.fmean(map(scored, calls)),
        "scorer_calls": statistics.fmean(map(len, calls)),
        **middle,
        "hops_p50_ms": hops.percentile_ms(50),
        "served_over_scorer_p50": statistics.median(block["ratio"] for block in blocks),
        "ratios": [block["ratio"] for block in blocks],
        "stages_ms": served_stages(counted, client_ms, offline),
        "offline_stages_ms": offline,
        **asked.quality(answers),
    }


def describe(params: SearchParams) -> str:
    """A search in a few words."""
    ef, rounds = (", ".join(map(str, values)) for values in (params.ef, params.rounds))
    seeds = "" if params.seeds is None else f", {params.seeds.count} seeds of a light walk with ef {params.seeds.ef}"
    return f"top {params.top_k}, ef {{{ef}}}, rounds {{{rounds}}}{seeds}"


def served_stages(counted: dict[str, Any], client_ms: float, offline: dict[str, float]) -> dict[str, float]:
    """Where the mean request's time went, by the keys of `STAGES`; the sum is `client_ms`.

    Triton counts by model. What beam_retrieval does besides waiting for the scorer is the walk, whose time is known
    from the same search in one process, and making the calls, which is what remains. Where it calls no scorer, what
    remains is scoring.
    """
    compute, total, requests = counted["compute_ms"], counted["total_ms"], counted["requests"]
    calls = requests[SCORER.name] / max(1.0, requests[ENSEMBLE.name])
    beam, walk = BEAM_RETRIEVAL.name, sum(ms for stage, ms in offline.items() if stage != "score")
    scorer_total, scorer_compute = (
        ms[SCORER.name] * calls if calls else compute[beam] - walk for ms in (total, compute)
    )
    steps = (FEATURE_TRANSFORM.name, USER_ENCODER.name, beam)
    return {
        "scorer": scorer_compute,
        "scorer_call": scorer_total - scorer_compute,
        "walk": walk,
        "bls": compute[beam] - scorer_total - walk,
        "beam_io": total[beam] - compute[beam],
        "encoder": total[USER_ENCODER.name],
        "features": total[FEATURE_TRANSFORM.name],
        "around": client_ms - sum(total[name] for name in steps),
    }


def _asked_calls(asked: AskedUsers, calls: list[Calls], answers: tuple[Answer, ...]) -> list[Calls]:
    """The calls of the users whom a served block asked, as often as it asked: both medians are over the same."""
    rows = {tuple(history): row for row, history in enumerate(asked.histories)}
    return [calls[rows[answer.behavior_item_ids]] for answer in answers]


def markdown(result: Json) -> str:
    """A sentence a corpus, and the parts of a request."""
    rows = [
        [
            f"{_name(one)}, {one['search']}",
            f"{one['items_scored']:,.0f}",
            f"{one['scorer_calls']:.1f}",
            f"{one['served_p50_ms']:.2f}",
            f"{one['plain_p50_ms']:.2f}",
            f"{one['hops_p50_ms']:.2f}",
            f"{one['served_over_scorer_p50']:.2f} ({min(one['ratios']):.2f} to {max(one['ratios']):.2f})",
            f"{_total(one) / one['stages_ms']['scorer']:.2f}",
            percent(one["coverage"]),
            percent(one["recall"]),
        ]
        for one in result.values()
    ]
    times = ["served p50 ms", "scorer alone p50 ms", "Triton alone p50 ms"]
    ratios = ["ratio", "ratio to its scoring", "coverage@K", "recall@K"]
    first = table(["corpus and search", "items scored", "scorer calls", *times, *ratios], rows)
    parts = [
        [
            words,
            *(f"{one['stages_ms'][key]:.2f} ({one['stages_ms'][key] / _total(one):.1%})" for one in result.values()),
        ]
        for key, words in STAGES.items()
    ]
    second = table(["where a request's time goes, mean ms", *map(_name, result.values())], parts)
    return (
        "One request at a time through perf_analyzer, and the same candidates in as many plain calls of the same "
        "engine, with as many threads, in one process; blocks of both alternate, the ratio is the median over the "
        "blocks (least to most). Triton alone: the same server with models that take and give the same tensors, make "
        "the same calls and do nothing else. Ratio to its scoring: a request's mean time over what its scoring took in "
        "the server, where the scorer sleeps between calls and then finds caches cold.\n\n"
        f"{first}\n\n{second}"
    )


def _name(one: Json) -> str:
    return f"{one['items']:,} items, {_words(one)}"


def _words(one: Json) -> str:
    threads = one["threads"]
    return f"{PLACES[one['scorer']]}, {threads} thread{'' if threads == 1 else 's'}"


def _total(one: Json) -> float:
    return float(sum(one["stages_ms"].values()))


def plot(result: Json, path: Path) -> None:
    """One bar a corpus, its parts from the scorer outwards."""
    with figure(path, size=(8.0, 4.6)) as (axes,):
        names = [_name(one).replace(", ", ",\n", 1) for one in result.values()]
        left = [0.0] * len(names)
        shades = [*COLORS, "#888888", "#cccccc"]
        for (key, words), color in zip(STAGES.items(), shades, strict=False):
            widths = [max(0.0, one["stages_ms"][key]) for one in result.values()]
            axes.barh(names, widths, left=left, color=color, label=words, height=0.55)
            left = [a + b for a, b in zip(left, widths, strict=True)]
        axes.set_xlabel("mean time of a request [ms]")
        axes.set_title("Where the time of a served request goes, one at a time")
        axes.invert_yaxis()
        axes.legend(fontsize=7, ncols=3, loc="upper center", bbox_to_anchor=(0.4, -0.15))


def headline(result: Json) -> dict[str, Json]:
    """Of the corpus in the paper's setting, what one thread scores."""
    ratio = "served_over_scorer_p50"
    return {ratio + suffix: result[f"table1{suffix}"][ratio] for suffix in _ONE_THREAD if f"table1{suffix}" in result}


BENCHMARK = Benchmark(
    NAME, "Served latency and the scorer's own time", run, markdown, {"perf_stages.png": plot}, headline
)
