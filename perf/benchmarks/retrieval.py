"""Compares the search with two other ways to a top list of the same scorer: scoring every item, and a cascade.

All run in one process with the same scorer in the same engine, one user at a time, without a server. The cascade has
this product's own first stage: the light walk takes the best n items by light score, and the scorer orders them. So it
shows what the rounds of the search add. n is the smallest that reaches 99% of the recall, or of the coverage, of the
search that the bundle recommends ("ours"). The benchmark `cascade` has hnswlib as the first stage.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from nann.exact_search import exact_search
from nann.kernels import Int32Array
from nann.light_walk import light_walk
from nann.search_params import SeedParams
from nann.signature import ENTRY_LAYERS, ENTRY_SEEDS

from ...training.reports.alternate import alternate
from ...training.reports.text import MISSING, percent, table
from ...training.search.measured_users import MeasuredUsers
from ...training.studies.measures.other_retrievers import ScoredPool
from ..benchmark import Benchmark, BenchSettings, Json, Say
from ..corpora.offline import OfflineUsers, one_by_one

LABELS = {
    ENTRY_SEEDS: "search, entry seeds",
    ENTRY_LAYERS: "search, entry layers (the paper's)",
    "cascade_recall": "cascade with the same recall",
    "cascade_coverage": "cascade with the same coverage",
    "cascade_most": "the largest cascade tried",
    "exhaustive": "every item scored",
}
_EXHAUSTIVE_USERS, _EXHAUSTIVE_REPEATS = 2, 3
_LEAST_EF = 400
_LEVEL, _MOST, _STEP = 0.99, 6, 1.2
"""A cascade is as good as ours from `_LEVEL` of our metric; n grows by `_STEP`, to `_MOST` times our evaluations."""


@dataclass(frozen=True)
class Sizes:
    """How many users quality is measured on; timing takes the first `timed` of them."""

    judged: int
    timed: int


SIZES = {"real": Sizes(256, 16), "table1": Sizes(32, 8)}


def compare(users: OfflineUsers, timed: int, repeats: int, say: Say) -> Json:
    """Quality of each method over all users, and its time per user over the first `timed`."""
    top_k = users.bundle.search_params.top_k
    say(f"retrieval: every item of {users.bundle.item_count:,} for {len(users.batch)} users")
    exact = exact_search(users.exact_scorer, users.batch, users.bundle.item_count, top_k, user_block=1).items
    judge = MeasuredUsers(users.batch, users.queries, exact)
    walks = users.bundle.search_by_entry
    methods = {entry: judge.walk(users.bundle.index, users.scorer, params) for entry, params in walks.items()}
    ours = methods[users.bundle.search_params.entry]
    runs: dict[str, _Run] = {entry: partial(users.search, params) for entry, params in walks.items()}
    for metric, n in _cascade_sizes(users, judge, ours).items():
        methods[f"cascade_{metric}"] = judge.point(cascade(users, n, top_k), n)
        runs[f"cascade_{metric}"] = partial(cascade, users, n, top_k)
    say(f"retrieval: timing {', '.join(runs)}")
    times = alternate({name: partial(one_by_one, run, timed) for name, run in runs.items()}, repeats)
    for name, ms in times.items():
        methods[name]["ms"] = ms / timed
    methods["exhaustive"] = {**judge.point(exact, users.bundle.item_count), "ms": _exhaustive_ms(users, top_k, repeats)}
    return {
        "items": users.bundle.item_count,
        "users": len(users.batch),
        "timed_users": timed,
        "top_k": top_k,
        "entry": users.bundle.search_params.entry,
        "methods": methods,
        "stages": {entry: users.stages_ms(params, 1, timed) for entry, params in walks.items()},
    }


def cascade(users: OfflineUsers, n: int, top_k: int, rows: slice = slice(None)) -> Int32Array:
    """The n best by light score, found by the light walk on the graph, re-ranked by the scorer: `int32[U, top_k]`."""
    states = users.batch.states[rows]
    wide = [SeedParams(n, 2 * n + _LEAST_EF)] * len(states)
    found = light_walk(users.bundle.index, states, wide, None, threads=1).items
    return ScoredPool.of(users.scorer, states, found).best(n, top_k).items


_Run = Callable[[slice], object]


def _cascade_sizes(users: OfflineUsers, judge: MeasuredUsers, ours: dict[str, float]) -> dict[str, int]:
    """By metric: the fewest candidates with which a cascade is as good as ours; "most" if it takes too many."""
    if users.bundle.light_vectors is None:
        return {}
    top_k = judge.top_k
    sizes: dict[str, int] = {}
    for n in _steps(top_k, max(top_k, min(round(_MOST * ours["evaluations"]), users.bundle.item_count))):
        reached = judge.point(cascade(users, n, top_k), n)
        for metric in ("recall", "coverage"):
            if reached[metric] >= _LEVEL * ours[metric]:
                sizes.setdefault(metric, n)
        if len(sizes) == 2:
            return sizes
    return {**sizes, "most": n}


def _steps(first: int, last: int) -> Iterator[int]:
    size = float(first)
    while size < last:
        yield round(size)
        size *= _STEP
    yield last


def _exhaustive_ms(users: OfflineUsers, top_k: int, repeats: int) -> float:
    some = users.batch[:_EXHAUSTIVE_USERS]
    search = {"all": lambda: exact_search(users.scorer, some, users.bundle.item_count, top_k, user_block=1)}
    return alternate(search, min(repeats, _EXHAUSTIVE_REPEATS))["all"] / len(some)


def _table(result: Json) -> str:
    columns = ["method", "ms per user", "relative to ours", "evaluations", f"coverage@{result['top_k']}", "recall"]
    ours = result["methods"][result["entry"]]
    rows = [
        [
            LABELS[name],
            f"{one['ms']:.2f}",
            MISSING if one is ours else f"{one['ms'] / ours['ms']:.1f}",
            f"{one['evaluations']:,.0f}",
            percent(one["coverage"]),
            percent(one["recall"]),
        ]
        for name in LABELS
        if (one := result["methods"].get(name)) is not None
    ]
    return table(columns, rows)


def _remarks(result: Json) -> str:
    methods, lines = result["methods"], []
    if {ENTRY_SEEDS, ENTRY_LAYERS} <= methods.keys():
        seeds, layers = methods[ENTRY_SEEDS], methods[ENTRY_LAYERS]
        stages = result["stages"][ENTRY_SEEDS]
        lines.append(
            f"The light walk takes {percent(stages['light_walk'] / sum(stages.values()), 1)} of the time of the search "
            f"with entry seeds. That search takes {seeds['evaluations'] / layers['evaluations']:.2f} of the "
            f"evaluations and {seeds['ms'] / layers['ms']:.2f} of the time of the paper's."
        )
    if "cascade_most" in methods:
        missing = " and ".join(metric for metric in ("recall", "coverage") if f"cascade_{metric}" not in methods)
        lines.append(f"The largest cascade does not reach our {missing}.")
    return " ".join(lines)


def _run_both(settings: BenchSettings, say: Say) -> Json:
    return {
        name: compare(OfflineUsers.load(settings.corpora[name], sizes.judged), sizes.timed, settings.repeats, say)
        for name, sizes in SIZES.items()
    }


def _markdown(result: Json) -> str:
    return "\n\n".join(
        f"**{one['items']:,} items**, {one['users']} test users, the first {one['timed_users']} of them timed; for "
        f"each entry the search that the bundle recommends (ours: {one['entry']}).\n\n{_table(one)}\n\n{_remarks(one)}"
        for one in result.values()
    )


BENCHMARK = Benchmark("retrieval", "The search beside exhaustive scoring and a cascade", _run_both, _markdown)
