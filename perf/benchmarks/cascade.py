"""The search beside a cascade that has hnswlib as its first stage: what each costs at the same coverage.

A cascade takes the best n items by the inner product of two vectors, and the deep scorer puts them in order. Both ways
use the bundle's own vectors for that product (its light score), the same scorer in the same engine, and one user at a
time. For each level of coverage the settings of each way with the fewest evaluations that reach it are timed, in turns.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from nann.exact_search import exact_search
from nann.light_walk import light_users
from nann.scorer import Float32Array, Int32Array
from nann.search_params import SearchParams, SeedParams

from ...training.reports.alternate import alternate
from ...training.reports.text import MISSING, percent, table
from ...training.search.measured_users import MeasuredUsers
from ...training.studies.measures.inner_product_index import InnerProductIndex
from ...training.studies.measures.other_retrievers import ScoredPool
from ..benchmark import Benchmark, BenchSettings, Json, Say
from ..corpora.offline import OfflineUsers, one_by_one

NAME = "cascade"
LEVELS, RECALLS = (0.8, 0.9, 0.95, 0.98, 0.99), (0.95, 0.99)
"""Coverage, and recall as a share of the exact list's."""
WAYS = ("search", "cascade")
DEMANDING = 0.95
"""From this coverage on a search must not take longer than a cascade."""
USERS = {"real": (64, 16), "table1": (32, 16)}
"""How many users quality is measured on, and how many of them are timed."""
_SIZES = (200, 300, 400, 600, 800, 1200, 1600, 2400, 3200, 4800, 6400, 9600, 12800)
_SEEDS, _EF, _ROUNDS = (200, 400, 800), (200, 300, 400, 600, 800), (1, 2, 3, 4, 6)
_M, _EF_CONSTRUCTION = 16, 100
"""Of hnswlib, as is usual."""


@dataclass(frozen=True)
class _Setting:
    """One setting of one way, what it reaches, and how to run it for some users."""

    words: str
    point: dict[str, float]
    run: Callable[[slice], object]


def compare(users: OfflineUsers, first_stage: InnerProductIndex, timed: int, repeats: int, say: Say) -> Json:
    """Time and evaluations of both ways at each level; None where a way does not reach it."""
    top_k, items = users.bundle.search_params.top_k, users.bundle.item_count
    say(f"{NAME}: the exact lists of {len(users.batch)} users among {items:,} items")
    exact = exact_search(users.exact_scorer, users.batch, items, top_k, user_block=1).items
    judge = MeasuredUsers(users.batch, users.queries, exact)
    say(f"{NAME}: what the settings of both ways reach")
    ways = dict(zip(WAYS, (_searches(users, judge), _cascades(users, judge, first_stage)), strict=True))
    wanted = [("coverage", level) for level in LEVELS] + [("recall", share) for share in RECALLS]
    picked = {
        way: [_fewest(settings, metric, _least(judge, metric, share)) for metric, share in wanted]
        for way, settings in ways.items()
    }
    say(f"{NAME}: timing")
    runs = {one.words: partial(one_by_one, one.run, timed) for row in picked.values() for one in row if one is not None}
    ms = alternate(runs, repeats)
    rows = []
    for place, (metric, share) in enumerate(wanted):
        row: dict[str, Json] = {"metric": metric, "level": share}
        for way, found in picked.items():
            one = found[place]
            row[way] = None if one is None else {"how": one.words, **one.point, "ms": ms[one.words] / timed}
        rows.append(row)
    return {"items": items, "users": len(users.batch), "timed_users": timed, "top_k": top_k, "levels": rows}


def _searches(users: OfflineUsers, judge: MeasuredUsers) -> list[_Setting]:
    top_k = judge.top_k
    params = [
        SearchParams(top_k, (max(ef, top_k),), (rounds,), SeedParams(seeds, max(seeds, ef)))
        for seeds in _SEEDS
        for ef in _EF
        for rounds in _ROUNDS
    ]
    params += users.bundle.search_by_entry.values()
    index = users.bundle.index
    return [
        _Setting(_words(one), judge.walk(index, users.scorer, one), partial(users.search, one)) for one in set(params)
    ]


def _words(params: SearchParams) -> str:
    start = "layers" if params.seeds is None else f"{params.seeds.count} seeds (ef {params.seeds.ef})"
    return f"{start}, ef {'/'.join(map(str, params.ef))}, rounds {'/'.join(map(str, params.rounds))}"


def _cascades(users: OfflineUsers, judge: MeasuredUsers, first_stage: InnerProductIndex) -> list[_Setting]:
    top_k = judge.top_k

    def run(n: int, rows: slice) -> Int32Array:
        states = users.batch.states[rows]
        found = first_stage.best(light_users(states, users.bundle.index.light_width), n, threads=1)
        return ScoredPool.of(users.scorer, states, found).best(n, top_k).items

    sizes = [n for n in _SIZES if top_k <= n < users.bundle.item_count] or [top_k]
    return [_Setting(f"the best {n:,}", judge.point(run(n, slice(None)), n), partial(run, n)) for n in sizes]


def _least(judge: MeasuredUsers, metric: str, share: float) -> float:
    return share if metric == "coverage" else share * judge.recall_all


def _fewest(settings: Sequence[_Setting], metric: str, least: float) -> _Setting | None:
    reached = [one for one in settings if one.point[metric] >= least]
    return min(reached, key=lambda one: one.point["evaluations"], default=None)


def two_sided(users: OfflineUsers) -> Float32Array:
    """The items' vectors, whose inner products with the user's are the light score: `float32[N, d]`."""
    items = users.bundle.light_vectors
    assert items is not None
    return items


def _run(settings: BenchSettings, say: Say) -> Json:
    result = {}
    for name, (judged, timed) in USERS.items():
        users = OfflineUsers.load(settings.corpora[name], judged)
        say(f"{NAME}: hnswlib's index of {users.bundle.item_count:,} items")
        folder = settings.cache / NAME / f"{name}-{users.bundle.bundle_id}"
        first_stage = InnerProductIndex(two_sided(users), folder, _M, _EF_CONSTRUCTION)
        result[name] = compare(users, first_stage, timed, settings.repeats, say)
    return result


def _ratio(row: Json) -> float | None:
    return None if row["search"] is None or row["cascade"] is None else row["search"]["ms"] / row["cascade"]["ms"]


def _markdown(result: Json) -> str:
    return "\n\n".join(_of_corpus(one) for one in result.values())


def _of_corpus(one: Json) -> str:
    columns = [
        "at least",
        *(f"{way}{what}" for way in WAYS for what in ("", ": evaluations", ": ms")),
        "search / cascade",
    ]
    rows = []
    for row in one["levels"]:
        of_all = "" if row["metric"] == "coverage" else " of the exact list's"
        cells = [f"{row['metric']} {percent(row['level'], 0)}{of_all}"]
        for way in WAYS:
            found = row[way]
            none = ["no setting", MISSING, MISSING]
            cells += none if found is None else [found["how"], f"{found['evaluations']:,.0f}", f"{found['ms']:.2f}"]
        ratio = _ratio(row)
        rows.append([*cells, MISSING if ratio is None else f"{ratio:.2f}"])
    return (
        f"**{one['items']:,} items**, top {one['top_k']}, {one['users']} test users, {one['timed_users']} timed "
        f"one by one, on one thread.\n\n{table(columns, rows)}\n\n{_who_wins(one)}"
    )


def _who_wins(one: Json) -> str:
    lost = [f"{row['metric']} {percent(row['level'], 0)}" for row in one["levels"] if (_ratio(row) or 0) > 1]
    if not lost:
        return "The search takes no longer than the cascade at any level that both reach."
    return f"The cascade is faster at {', '.join(lost)}."


def _headline(result: Json) -> dict[str, Json]:
    ratios = {
        name: [
            ratio
            for row in one["levels"]
            if row["metric"] == "coverage" and row["level"] >= DEMANDING and (ratio := _ratio(row)) is not None
        ]
        for name, one in result.items()
    }
    return {"retrieval_over_cascade": {name: max(found) for name, found in ratios.items() if found}}


BENCHMARK = Benchmark(
    NAME, "The search beside hnswlib and re-ranking, at the same coverage", _run, _markdown, headline=_headline
)
