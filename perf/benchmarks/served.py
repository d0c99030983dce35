"""Served latency against the scorer's own time: how much of a request is not scoring, and what takes it."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nann.search_params import SearchParams
from nann.signature import BEAM_RETRIEVAL, ENSEMBLE, FEATURE_TRANSFORM, SCORER, USER_ENCODER
from nann.threads import core_count

from ...python_backend.server.triton import TritonServer
from ...training.reports.plots import COLORS, figure
from ...training.reports.text import percent, table
from ..benchmark import Benchmark, BenchSettings, Json, Say
from ..corpora.asked_users import AskedUsers, asked_users
from ..corpora.replay import plain_ms, record_calls, scored
from ..load.perf_analyzer import Load, LoadPoint, run_perf_analyzer
from ..load.perf_analyzer_install import find_perf_analyzer
from ..servers.hops import empty
from ..servers.serving import Deployment, install, installed_scorer, serving
from ..servers.triton_counters import breakdown, read_metrics

NAME = "served"
_BLOCK_WINDOW_S = 1.0
"""Of a served block: short, so that served and plain blocks alternate quickly, but enough for about 20 requests."""
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
"""Key and words of every part of a served request; together they make up the whole."""
PLACES = {"bls": "scorer called by BLS", "in_process": "scorer in process"}
_BY_BLS = {"": Deployment(threads=1, scorer="bls")}
_ONE_THREAD = {**_BY_BLS, "_in_process": Deployment(threads=1, scorer="in_process")}


def run(settings: BenchSettings, say: Say) -> Json:
    """Both corpora, one request at a time; one thread scores, by BLS or in the search's process, then all cores."""
    deployments = dict(_ONE_THREAD)
    if (cores := core_count()) > 1:
        deployments["_all_cores"] = Deployment(threads=cores, scorer="bls")
    return {**_measured("table1", deployments, settings, say), **_measured("real", deployments, settings, say)}


def run_by_bls(settings: BenchSettings, say: Say) -> Json:
    """Only what the regression gate compares: Table 1's corpus, one thread, by BLS."""
    return _measured("table1", _BY_BLS, settings, say)


def _measured(name: str, deployments: Mapping[str, Deployment], settings: BenchSettings, say: Say) -> Json:
    corpus = settings.corpora[name]
    asked, result = asked_users(corpus, settings.users, settings.cache), {}
    for suffix, deployment in deployments.items():
        how = {"scorer": deployment.scorer, "threads": deployment.threads}
        say(f"{NAME}: {name} corpus, {_words(how)}")
        repository = install(corpus.bundle, settings.cache / NAME / name, deployment)
        result[name + suffix] = {**how, **measure(asked, repository, deployment, settings)}
    return result


def measure(asked: AskedUsers, repository: Path, deployment: Deployment, settings: BenchSettings) -> dict[str, Any]:
    """Served and plain blocks in turn for the search that the bundle recommends, then a server of empty models.

    `repository` was installed with `deployment`; its models are replaced by empty ones in the end.
    """
    params, tool = asked.bundle.search_params, find_perf_analyzer()

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
            # The calls of the users whom this block asked, as often: both medians are over the same requests.
            asked_calls = [calls[asked.row_of[answer.behavior_item_ids]] for answer in points[-1].answers]
            plain = statistics.median(plain_ms(users.scorer, asked_calls))
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
    """Mean time of a request by the keys of `STAGES`; the sum is `client_ms`.

    Triton counts the time of each model. In beam_retrieval it consists of waiting for the scorer, of walking the graph
    (timed by the same search in one process) and of making the calls, which is the rest. Where beam_retrieval scores in
    its own process, the rest is scoring.
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


def _markdown(result: Json) -> str:
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
        "Served: one request at a time through perf_analyzer. Scorer alone: the same candidates in as many plain calls "
        "of the same engine with as many threads, in one process. Blocks of both alternate; the ratio is the median "
        "over the blocks (least to most). Triton alone: the same server with models that take and return the same "
        "tensors, make the same calls and do nothing else. Ratio to its scoring: the mean time of a request over its "
        "scoring in the server, where the scorer sleeps between calls and then finds caches cold.\n\n"
        f"{first}\n\n{second}"
    )


def _name(one: Json) -> str:
    return f"{one['items']:,} items, {_words(one)}"


def _words(one: Json) -> str:
    threads = one["threads"]
    return f"{PLACES[one['scorer']]}, {threads} thread{'' if threads == 1 else 's'}"


def _total(one: Json) -> float:
    return float(sum(one["stages_ms"].values()))


def _plot(result: Json, path: Path) -> None:
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


def _headline(result: Json) -> dict[str, Json]:
    ratio = "served_over_scorer_p50"
    return {ratio + suffix: result[f"table1{suffix}"][ratio] for suffix in _ONE_THREAD if f"table1{suffix}" in result}


BENCHMARK = Benchmark(
    NAME, "Served latency and the scorer's own time", run, _markdown, {"perf_stages.png": _plot}, _headline
)
