"""What it takes to bring 1% of new items into the graph of a million, against building it anew (`nann refresh`)."""

from __future__ import annotations

import time

import numpy as np
import numpy.typing as npt

from nann.beam_search import beam_search
from nann.exact_search import exact_search
from nann.graph import HnswGraph
from nann.metrics import coverage
from nann.scorer import Float32Array
from nann.search_input import SearchIndex, UserBatch

from ...training.config import IndexConfig
from ...training.reports.text import listing
from ...training.search.copies import Copies
from ...training.search.index import build_graph
from ...training.search.next_graph import next_graph
from ...training.search.planted import EF_CONSTRUCTION, M, PlantedCorpus, PlantedScorer, planted_vectors
from ..benchmark import Benchmark, BenchSettings, Json, Say
from .growth import search_params

ITEMS, SHARE = 1_000_000, 0.01
WORDS = {
    "anew": "all built anew",
    "joined": f"{SHARE:.0%} new ones join",
    "replaced": f"{SHARE:.0%} go, {SHARE:.0%} new ones join",
}
_TOP_K, _USERS = 200, 64
_CONFIG = IndexConfig(m=M, ef_construction=EF_CONSTRUCTION)


def measure(corpus: PlantedCorpus, users: int, say: Say) -> Json:
    """Seconds, and coverage over some users, of each way to the next graph."""
    count, old_vectors = len(corpus.vectors), np.asarray(corpus.vectors)
    new = planted_vectors(count, count + round(SHARE * count))
    gone = np.random.default_rng(0).choice(count, len(new), replace=False)
    every, kept = np.arange(count), np.setdiff1d(np.arange(count), gone)
    result: Json = {"items": count, "new": len(new), "users": users}
    for name, old in (("anew", every), ("joined", every), ("replaced", kept)):
        vectors = np.concatenate([old_vectors[old], new])
        say(f"refresh: {WORDS[name]}")
        start, start_core = time.perf_counter(), time.process_time()
        if name == "anew":
            config = _CONFIG.model_copy(update={"entry_layer": corpus.graph.entry_layer})
            graph = build_graph(vectors, Copies.of(vectors), config)
        else:
            graph = next_graph(corpus.graph, old_vectors, vectors, np.append(old, np.full(len(new), -1)), _CONFIG)
        took = {"seconds": time.perf_counter() - start, "core_seconds": time.process_time() - start_core}
        result[name] = {**took, **_quality(graph, vectors, len(old), users)}
    return result


def _quality(graph: HnswGraph, vectors: Float32Array, old: int, users: int) -> Json:
    batch, scorer = UserBatch(planted_vectors(0, users, seed=1), None), PlantedScorer(vectors)
    found = beam_search(SearchIndex(graph, None), scorer, batch, search_params(graph.entry_layer))
    exact = exact_search(scorer, batch, len(vectors), _TOP_K, chunk=65_536, user_block=1)
    return {
        "coverage": coverage(found.items, exact.items),
        "of_new": _share_found(found.items, exact.items, old),
        "evaluations": float(found.items_scored.mean()),
    }


def _share_found(found: npt.NDArray[np.int32], exact: npt.NDArray[np.int32], first: int) -> float:
    """The share of the exact list's items from `first` on that a search finds."""
    wanted = [row[row >= first] for row in exact]
    got = sum(len(np.intersect1d(row, own)) for row, own in zip(wanted, found, strict=True))
    return got / max(sum(map(len, wanted)), 1)


def _run(settings: BenchSettings, say: Say) -> Json:
    return measure(PlantedCorpus.cached(settings.cache / "growth", ITEMS), _USERS, say)


def _markdown(result: Json) -> str:
    columns = {
        "the graph": "{words}",
        "seconds": "{seconds:.1f}",
        "seconds of a core": "{core_seconds:.1f}",
        "of building anew": "{share:.1%}",
        f"coverage@{_TOP_K}": "{coverage:.2%}",
        "of the new items": "{of_new:.2%}",
        "evaluations": "{evaluations:,.0f}",
    }
    anew = result["anew"]["core_seconds"]
    points = [
        {**result[name], "words": words, "share": result[name]["core_seconds"] / anew} for name, words in WORDS.items()
    ]
    return (
        f"{result['items']:,} planted items and {result['new']:,} new ones, as in the benchmark above; "
        f"coverage over {result['users']} users, against scoring every item. Seconds are those of the graph alone."
        f"\n\n{listing(points, columns)}"
    )


def _headline(result: Json) -> dict[str, Json]:
    return {"refresh_over_anew": result["joined"]["core_seconds"] / result["anew"]["core_seconds"]}


BENCHMARK = Benchmark("refresh", "The next graph of a corpus that changed", _run, _markdown, headline=_headline)
