"""The cost of a query as the corpus grows from ten thousand to ten million items.

Vectors are planted, not trained. The scorer is a small MLP in NumPy, so cheap that the cost of the graph search shows.
ef and rounds are the same on every corpus. Only the entry layer depends on the size, since all its items are scored: it
is the lowest layer of at most `LARGEST_ENTRY_LAYER` items. A much larger corpus therefore has one more layer to search.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from nann.beam_search import beam_search
from nann.exact_search import exact_search
from nann.metrics import coverage
from nann.search_input import SearchIndex, UserBatch
from nann.search_params import SearchParams
from nann.search_result import SearchResult

from ...training.reports.alternate import alternate
from ...training.reports.plots import COLORS, MARKERS, figure, plain_log
from ...training.reports.text import listing
from ...training.search.planted import (
    EF_CONSTRUCTION,
    LARGEST_ENTRY_LAYER,
    WIDTH,
    M,
    PlantedCorpus,
    PlantedScorer,
    planted_vectors,
)
from ..benchmark import Benchmark, BenchSettings, Json, Say

ITEMS = (10_000, 100_000, 1_000_000, 10_000_000)
_TOP_K, _EF, _GROUND_EF, _GROUND_ROUNDS = 200, 200, 500, 3
_TIMED_USERS, _JUDGED_USERS = 32, 8


def search_params(entry_layer: int) -> SearchParams:
    """The same ef and rounds on every layer above the ground layer, for any number of layers."""
    return SearchParams(_TOP_K, (_EF,) * entry_layer + (_GROUND_EF,), (1,) * entry_layer + (_GROUND_ROUNDS,))


def measure(corpora: list[PlantedCorpus], timed: int, judged: int, repeats: int, say: Say) -> list[Json]:
    """One entry per corpus: mean time and evaluations per query, and coverage over the first `judged` users."""
    # Users are drawn like items but with another random seed: no user's vector equals an item's.
    users = UserBatch(planted_vectors(0, timed, seed=1), None)
    scorers = [PlantedScorer(corpus.vectors) for corpus in corpora]
    searches = [
        partial(beam_search, SearchIndex(corpus.graph, None), scorer, params=search_params(corpus.graph.entry_layer))
        for corpus, scorer in zip(corpora, scorers, strict=True)
    ]

    def one_by_one(search: Callable[[UserBatch], SearchResult]) -> None:
        for row in range(timed):
            search(users[row : row + 1])

    times = alternate({str(number): partial(one_by_one, search) for number, search in enumerate(searches)}, repeats)
    points = []
    for number, (corpus, scorer, search) in enumerate(zip(corpora, scorers, searches, strict=True)):
        say(f"growth: every item of {len(corpus.vectors):,} for {judged} users")
        found = search(users)
        exact = exact_search(scorer, users[:judged], len(corpus.vectors), _TOP_K, chunk=65_536, user_block=1)
        points.append(
            {
                "items": len(corpus.vectors),
                "ms": times[str(number)] / timed,
                "evaluations": float(found.items_scored.mean()),
                "coverage": coverage(found.items[:judged], exact.items),
                "layers": corpus.graph.entry_layer + 1,
                "entry_points": len(corpus.graph.entry_points),
                "mean_degree": len(corpus.graph.layers[0].neighbors) / len(corpus.vectors),
            }
        )
    return points


def _run(settings: BenchSettings, say: Say) -> Json:
    corpora = []
    for items in ITEMS:
        say(f"growth: {items:,} planted items")
        corpora.append(PlantedCorpus.cached(settings.cache / "growth", items))
    points = measure(corpora, _TIMED_USERS, _JUDGED_USERS, settings.repeats, say)
    return {"timed_users": _TIMED_USERS, "judged_users": _JUDGED_USERS, "points": points}


def _markdown(result: Json) -> str:
    columns = {
        "items": "{items:,}",
        "ms per query": "{ms:.2f}",
        "evaluations": "{evaluations:,.0f}",
        f"coverage@{_TOP_K}": "{coverage:.2%}",
        "layers": "{layers}",
        "entry points": "{entry_points:,}",
        "mean degree": "{mean_degree:.1f}",
    }
    return (
        f"Planted vectors of {WIDTH} numbers, indexed by hnswlib with M {M} and ef_construction {EF_CONSTRUCTION}. The "
        f"paper's search has ef {_EF} and one round on each upper layer, and ef {_GROUND_EF} and {_GROUND_ROUNDS} "
        f"rounds on the ground layer; the entry layer is the lowest of at most {LARGEST_ENTRY_LAYER:,} items. "
        f"{result['timed_users']} users, one at a time; coverage over {result['judged_users']} of them, against "
        f"scoring every item."
        f"\n\n{listing(result['points'], columns)}"
    )


def _headline(result: Json) -> dict[str, Json]:
    ms = {point["items"]: point["ms"] for point in result["points"]}
    return {"cost_10m_over_100k": ms[10_000_000] / ms[100_000]}


def _plot(result: Json, path: Path) -> None:
    items = [point["items"] for point in result["points"]]
    with figure(path, panels=2) as axes:
        for place, (axis, key, label) in enumerate(
            zip(axes, ("ms", "evaluations"), ("ms per query", "scorer evaluations per query"), strict=True)
        ):
            values = [point[key] for point in result["points"]]
            axis.plot(items, values, color=COLORS[place], marker=MARKERS[place])
            plain_log(axis, "x")
            axis.set_xticks(items)
            axis.set_ylim(bottom=0)
            axis.set_xlabel("items in the corpus")
            axis.set_ylabel(label)


BENCHMARK = Benchmark(
    "growth", "Cost against the size of the corpus", _run, _markdown, {"perf_growth.png": _plot}, _headline
)
