"""What it takes to bring 1% of new items into the graph of a million, against building it anew (`nann refresh`)."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from nann.beam_search import beam_search
from nann.bundle import Bundle
from nann.catalog import Changes, JournalWriter, Upsert
from nann.catalog.changes import model_of
from nann.durable_files import new_folder, write_json
from nann.exact_search import exact_search
from nann.graph import HnswGraph
from nann.metrics import coverage
from nann.scorer import Float32Array
from nann.search_input import SearchIndex, UserBatch

from ...training.config import IndexConfig
from ...training.reports.text import listing
from ...training.search.copies import Copies
from ...training.search.index import build_graph
from ...training.search.planted import EF_CONSTRUCTION, M, PlantedScorer, planted_vectors
from ...training.search.planted_bundle import planted_bundle
from ...training.search.refresh import refresh_bundle
from ..benchmark import Benchmark, BenchSettings, Json, Say
from .growth import search_params

NAME = "refresh"
ITEMS, SHARE = 1_000_000, 0.01
WORDS = {
    "anew": "the graph of all, built anew",
    "joined": f"{SHARE:.0%} new ones join",
    "placed": f"{SHARE:.0%} join without a vector for the graph",
    "replaced": f"{SHARE:.0%} go, {SHARE:.0%} new ones join",
}
_TOP_K, _USERS, _BATCH = 200, 64, 500
T = TypeVar("T")


def measure(folder: Path, corpora: Path, items: int, users: int, say: Say) -> Json:
    """Seconds, and coverage over some users, of each way to the next graph.

    Args:
        folder: for the bundles, and for the graph that is built anew: that takes minutes, and is done once.
        corpora: where `PlantedCorpus.cached` keeps its corpora.
        items: of the corpus before.
        users: whose coverage is measured.
        say: gets lines about the progress.
    """
    bundle = planted_bundle(folder / f"bundle-{items}", corpora, items)
    new = planted_vectors(items, items + round(SHARE * items))
    gone = np.sort(np.random.default_rng(0).choice(items, len(new), replace=False)) + 1
    result: Json = {"items": items, "new": len(new), "users": users}
    for name, words in WORDS.items():
        say(f"{NAME}: {words}")
        if name == "anew":
            vectors = np.concatenate([bundle.item_vectors, new])
            graph, took = _anew(folder / f"anew-{items}", vectors, bundle.graph.entry_layer)
        else:
            journal = folder / "journal"
            _write(journal, bundle, new, gone if name == "replaced" else gone[:0], name != "placed")
            _, took = _timed(partial(refresh_bundle, bundle, journal, folder / "next"))
            after = Bundle.open(folder / "next", ())
            assert after.item_rows is not None
            graph, vectors = after.graph, np.asarray(after.item_rows.base)  # they are what the items' scores rest on
        result[name] = {**took, **_quality(graph, vectors, len(vectors) - len(new), users)}
    return result


def _timed(do: Callable[[], T]) -> tuple[T, Json]:
    start, start_core = time.perf_counter(), time.process_time()
    done = do()
    return done, {"seconds": time.perf_counter() - start, "core_seconds": time.process_time() - start_core}


def _anew(folder: Path, vectors: Float32Array, entry_layer: int) -> tuple[HnswGraph, Json]:
    """The graph of all items as it is built without another, from the cache if it is there."""
    if not folder.is_dir():
        config = IndexConfig(m=M, ef_construction=EF_CONSTRUCTION)
        graph, took = _timed(lambda: build_graph(vectors, Copies.of(vectors), config))
        with new_folder(folder) as made:
            graph.save(made)
            write_json(made / "took.json", {**took, "layers": len(graph.layers)})
    took = json.loads((folder / "took.json").read_text())
    graph = HnswGraph.load(folder, took.pop("layers"), 0, 0)
    return replace(graph, entry_layer=entry_layer), took


def _write(journal: Path, bundle: Bundle, new: Float32Array, gone: npt.NDArray[np.int64], with_vectors: bool) -> None:
    """The journal in which items are added, as many deleted, and nothing before."""
    journal.unlink(missing_ok=True)
    writer = JournalWriter(journal)
    for start in range(0, len(new), _BATCH):
        upserts = [
            Upsert(bundle.item_count + 1 + number, {}, vector, vector, vector if with_vectors else None)
            for number, vector in enumerate(new[start : start + _BATCH], start)
        ]
        deleted = gone[start : start + _BATCH].tolist()
        writer.append(Changes(time.time(), upserts, deleted, model_of(bundle.manifest)).pack())
    writer.close()


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
    return measure(settings.cache / NAME, settings.cache / "growth", ITEMS, _USERS, say)


def _markdown(result: Json) -> str:
    columns = {
        "the next graph": "{words}",
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
        f"A bundle of {result['items']:,} planted items, as in the benchmark above (M {M}, ef_construction "
        f"{EF_CONSTRUCTION}), and a journal with {result['new']:,} new ones: all of `nann refresh`, from the journal "
        "to the files of the next bundle, against the graph alone, built anew of all items. Coverage is that over "
        f"{result['users']} users of the same walk, against scoring every item.\n\n{listing(points, columns)}"
    )


def _headline(result: Json) -> dict[str, Json]:
    ways = [result[name] for name in WORDS if name != "anew"]
    return {
        "refresh_over_anew": result["joined"]["core_seconds"] / result["anew"]["core_seconds"],
        "refresh_points_lost": 100 * (result["anew"]["coverage"] - min(way["coverage"] for way in ways)),
    }


BENCHMARK = Benchmark(NAME, "The next graph of a corpus that changed", _run, _markdown, headline=_headline)
