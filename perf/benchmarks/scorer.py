"""The scorer as served, with an item table and with rows shipped, against a naive export, and in other engines.

All run on one thread and in one process, in turns. Speed is measured on the paper's network with random weights and
Table 1's number of items. Candidates are random, so that every look-up misses the cache, as on a large corpus. The loss
of lower precision is measured on the real bundle, for real users.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import cycle, islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nann.bundle import SCORER_FILE, USER_ENCODER_FILE, Bundle
from nann.exact_search import exact_search
from nann.metrics import coverage
from nann.scorer import Int32Array
from nann.search_input import UserBatch
from nann.signature import BEHAVIORS, CANDIDATE_SCORES, CANDIDATES

from ...python_backend.engines.onnx_model import EmbeddedScorer
from ...training.reports.alternate import alternate
from ...training.reports.plots import COLORS, GREY, MARKERS, figure, plain_log
from ...training.reports.text import listing
from ...training.search.measured_users import exact_top
from ..benchmark import Benchmark, BenchSettings, Json, Say
from ..corpora.asked_users import asked_users
from ..corpora.table1 import Corpus
from .scorer_engines import NATIVE, SERVED, Score, engines, native_engine, served_engine

if TYPE_CHECKING:
    from ...training.export.compared_forms import ComparedForms

ITEMS = 1_300_000
USERS = (1, 4, 16)
CANDIDATE_COUNTS = (500, 2_000, 17_000)
"""Two usual rounds of a search, and all candidates of a query of the paper's Table 1."""
BATCH = (16, 1_000)
"""Users, and candidates per user."""
WALK = (200, 4_000)
"""Fewest and most candidates of a round, where the number differs from round to round."""
_TOUCHED = 10_000
_WALK_ROUNDS = 20
_DRAWS = 8
_COVERED_USERS = 32
_SEARCHED_USERS = 16
_TOP_K = 200
_Call = Callable[[Int32Array], object]
"""Scores `int32[B, C]` candidates of the last B users, of whom most have whole histories."""


def run(settings: BenchSettings, say: Say) -> Json:
    """See the module. Times are medians in ms; ratios are of medians."""
    from ...training.export.compared_forms import export_forms, paper_network

    folder = settings.cache / "scorer"
    say(f"exporting the paper's network with {ITEMS:,} items in three forms")
    forms = export_forms(paper_network(ITEMS), folder, max(USERS))
    return {
        "items": ITEMS,
        "shipped_floats": forms.rows.width,
        "forms": compare_forms(forms, settings.repeats, say),
        "engines": compare_engines(forms, folder, settings.repeats, say),
        "coverage": compare_coverage(settings, folder, say),
        "native": [
            row for name, corpus in settings.corpora.items() for row in compare_native(name, corpus, settings, say)
        ],
    }


def compare_forms(
    forms: ComparedForms,
    repeats: int,
    say: Say,
    users: tuple[int, ...] = USERS,
    counts: tuple[int, ...] = CANDIDATE_COUNTS,
) -> list[dict[str, Json]]:
    """The three forms of the network: one row for each number of users and of candidates per user."""
    calls = {name: _form(forms, name) for name in ("naive", "served", "shipped")}
    for call in calls.values():
        _score_all(call, len(forms.rows.base))
    rows = []
    for user_count in users:
        for count in counts:
            draws = _draws(len(forms.rows.base), user_count, count)
            times = alternate({name: _turns(call, draws) for name, call in calls.items()}, repeats)
            row = {"users": user_count, "candidates": count} | {f"{name}_ms": time for name, time in times.items()}
            row |= {f"{name}_over_served": times[name] / times["served"] for name in ("naive", "shipped")}
            say(f"{user_count} users x {count}: naive / served {row['naive_over_served']:.2f}, "
                f"rows shipped / item table {row['shipped_over_served']:.2f}")  # fmt: skip
            rows.append(row)
    return rows


def compare_engines(forms: ComparedForms, folder: Path, repeats: int, say: Say) -> list[dict[str, Json]]:
    """One row per engine, ms for 1,000 pairs: calls of one size, and calls whose size changes as in a search."""
    found = engines(forms.served, folder, say, {"export": {"native": forms.native}})
    rows: list[dict[str, Json]] = [{"engine": engine.name} for engine in found]
    rng = np.random.default_rng(1)
    items = len(forms.rows.base)
    loads: dict[str, list[Int32Array]] = {str(count): _draws(items, 1, count) for count in CANDIDATE_COUNTS}
    loads["batch"] = _draws(items, *BATCH)
    loads["walk"] = [_candidates(rng, items, 1, width) for width in rng.integers(*WALK, 40 * _WALK_ROUNDS)]
    for engine in found:
        _score_all(_engine(engine.score, forms), items)
    for name, draws in loads.items():
        calls = _WALK_ROUNDS if name == "walk" else 1
        score = {engine.name: _turns(_engine(engine.score, forms), draws, calls) for engine in found}
        times = alternate(score, repeats)
        pairs = calls * float(np.mean([draw.size for draw in draws]))
        for row in rows:
            row[f"{name}_ms_per_1000"] = times[row["engine"]] / pairs * 1000
    return rows


def compare_coverage(settings: BenchSettings, folder: Path, say: Say) -> dict[str, float]:
    """Share of the served engine's exact top 200 that is in each engine's exact top 200, on the real bundle."""
    from ...training.data.prepared import PreparedData
    from ...training.scorers import OnnxUserEncoder

    bundle = Bundle.open(settings.real.bundle)
    queries = PreparedData.load(settings.real.data).queries("test", bundle.sequence_length, _COVERED_USERS)
    encoder = OnnxUserEncoder(bundle.path / USER_ENCODER_FILE, 1)
    users = UserBatch(encoder.encode(queries.behaviors, queries.profiles), queries.behaviors)
    found = engines(bundle.path / SCORER_FILE, folder, say, bundle.manifest)
    tops = {engine.name: exact_search(engine, users, bundle.item_count, _TOP_K).items for engine in found}
    return {name: coverage(top, tops[SERVED]) for name, top in tops.items()}


def compare_native(name: str, corpus: Corpus, settings: BenchSettings, say: Say) -> list[dict[str, Json]]:
    """What the native form loses on a corpus: one row, or none where this CPU can't run it.

    The share of the exact top K that it keeps, and the coverage of the bundle's search under onnxruntime and under it.
    """
    asked = asked_users(corpus, settings.users, settings.cache)
    bundle, users = asked.bundle, asked.users.take(np.arange(min(_SEARCHED_USERS, len(asked.users))))
    native = native_engine(bundle.path, bundle.manifest, say)
    if native is None:
        return []
    own, served = (
        EmbeddedScorer(native, bundle.item_rows),
        EmbeddedScorer.open(bundle.path / SCORER_FILE, rows=bundle.item_rows),
    )
    found = exact_top(own, users.batch, bundle.item_count, users.top_k, users.excluded)
    searched = {
        key: users.measure(bundle.index, scorer, bundle.search_params)["coverage"]
        for key, scorer in (("served", served), ("native", own))
    }
    say(f"{name}: native keeps {coverage(found, users.exact):.2%} of the exact top {users.top_k}; coverage {searched}")
    return [{"corpus": name, "top_k": users.top_k, "agreement": coverage(found, users.exact), "coverage": searched}]


def _form(forms: ComparedForms, name: str) -> _Call:
    from ...training.scorers import onnx_session

    if name == "served":
        return _engine(served_engine(forms.served), forms)
    if name == "shipped":
        return _engine(EmbeddedScorer.open(forms.shipped, rows=forms.rows).score, forms)
    session = onnx_session(forms.naive, 1)

    def call(candidates: Int32Array) -> object:
        feeds = {BEHAVIORS.name: forms.behaviors[-len(candidates) :], CANDIDATES.name: candidates}
        return session.run([CANDIDATE_SCORES.name], feeds)

    return call


def _score_all(call: _Call, items: int) -> None:
    """Scores every item once, since the first read of each page of a mapped table costs a page fault."""
    for first in range(0, items, _TOUCHED):
        call(np.arange(first, min(first + _TOUCHED, items), dtype=np.int32)[None, :])


def _engine(score: Score, forms: ComparedForms) -> _Call:
    return lambda candidates: score(forms.user_states[-len(candidates) :], candidates)


def _turns(call: _Call, draws: list[Int32Array], calls: int = 1) -> Callable[[], None]:
    """A function that makes `calls` calls, each with other candidates, so that none are in the cache."""
    endless = cycle(draws)

    def turn() -> None:
        for candidates in islice(endless, calls):
            call(candidates)

    return turn


def _draws(items: int, users: int, count: int) -> list[Int32Array]:
    rng = np.random.default_rng(0)
    return [_candidates(rng, items, users, count) for _ in range(_DRAWS)]


def _candidates(rng: np.random.Generator, items: int, users: int, count: int) -> Int32Array:
    return rng.integers(items, size=(users, count), dtype=np.int32)


def _markdown(result: Json) -> str:
    forms = {
        "users": "{users}",
        "candidates per user": "{candidates:,}",
        "served, ms": "{served_ms:.2f}",
        "naive / served": "{naive_over_served:.2f}",
        "vectors shipped / served": "{shipped_over_served:.2f}",
    }
    loads = {f"{count:,}": count for count in CANDIDATE_COUNTS} | {"batch": "batch", "walk": "walk"}
    kept = {
        "corpus": "{corpus}",
        "exact top K kept": "{agreement:.2%}",
        "coverage of the bundle's search, onnxruntime": "{coverage[served]:.2%}",
        "native": "{coverage[native]:.2%}",
    }
    engines = {header: f"{{{load}_ms_per_1000:.3f}}" for header, load in loads.items()}
    rows = []
    for row in result["engines"]:
        covered = result["coverage"].get(row["engine"])
        rows.append({**row, "coverage": "" if covered is None else f"{covered:.1%}"})
    low, high = WALK
    return (
        f"The paper's network, {result['items']:,} items, one thread each, in turns; medians. Naive: the plain PyTorch "
        "module exported as it is. Served: with an item table. Shipped: a vector of each candidate "
        f"({result.get('shipped_floats', 64)} floats; 64 is e_v, more is an item row) comes with the call; that takes "
        f"no transport here, since all runs in one process.\n\n{listing(result['forms'], forms)}\n\n"
        f"Engines, ms for 1,000 candidates of one user. batch: {BATCH[0]} users with {BATCH[1]:,} candidates each. "
        f"walk: the number of candidates differs from call to call, {low:,} to {high:,}. coverage: share of the served "
        f"engine's exact top {_TOP_K} on the real bundle.\n\n"
        f"{listing(rows, {'engine': '{engine}', **engines, 'coverage': '{coverage}'})}\n\n"
        f"What the native form keeps of {_SEARCHED_USERS} test users' lists.\n\n{listing(result['native'], kept)}"
    )


def _plot_ratios(result: Json, path: Path) -> None:
    counts = sorted({row["users"] for row in result["forms"]})
    with figure(path) as (axes,):
        for users, color, marker in zip(counts, COLORS, MARKERS, strict=False):
            rows = [row for row in result["forms"] if row["users"] == users]
            x, y = ([row[key] for row in rows] for key in ("candidates", "naive_over_served"))
            axes.plot(x, y, color=color, marker=marker, label=f"users per call: {users}")
        axes.axhline(1, color=GREY, linewidth=0.8)
        plain_log(axes, "x")
        axes.set(xlabel="candidates per user", ylabel="naive export / served scorer", ylim=(0, None))
        axes.legend()


def _headline(result: Json) -> dict[str, Json]:
    row = next(row for row in result["forms"] if (row["users"], row["candidates"]) == (1, CANDIDATE_COUNTS[-1]))
    found = {"scorer_over_naive": row["naive_over_served"]}
    times = {row["engine"]: row[f"{CANDIDATE_COUNTS[-1]}_ms_per_1000"] for row in result["engines"]}
    if NATIVE in times:
        found["cpu_bf16_over_fp32"] = times[NATIVE] / times[SERVED]
    lost = {row["corpus"]: 100 * (row["coverage"]["served"] - row["coverage"]["native"]) for row in result["native"]}
    kept = {row["corpus"]: 100 * row["agreement"] for row in result["native"]}
    return {**found, "native_kept": kept, "native_points_lost": lost}


BENCHMARK = Benchmark(
    name="scorer",
    title="The scorer: as served, naive, with vectors shipped, in other engines",
    run=run,
    markdown=_markdown,
    plots={"perf_scorer.png": _plot_ratios},
    headline=_headline,
)
