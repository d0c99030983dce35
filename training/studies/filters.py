"""Searches under filters: the corpora, models and users for `measures.filtered`, and vector databases beside them."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np
import polars as pl

from nann import item_sets
from nann.bundle import SCORER_FILE, Bundle
from nann.errors import ConfigError
from nann.filters import where
from nann.kernels import Uint64Array
from nann.light_walk import light_users
from nann.manifest import search_to_json
from nann.metrics import coverage
from nann.scorer import Float32Array
from nann.search_input import SearchIndex, UserBatch
from nann.search_params import SearchParams, SeedParams

from ..auto_config import auto_config
from ..data.prepared import PreparedData
from ..reports.store import Json, cached
from ..scorers import OnnxScorer
from ..search.default_search import recommend_search
from ..search.measured_users import bundle_users
from ..search.pipeline import export_checkpoint
from ..search.planted import PlantedCorpus, PlantedScorer, planted_vectors
from .filters_text import markdown, plot
from .measures import vector_databases
from .measures.filtered import SELECTIVITIES, BoolArray, FilteredSearch, drawn_filters
from .measures.other_retrievers import ScoredPool
from .measures.vector_databases import Asked
from .runs import Runs, Say
from .settings import ONE_MILLION, SPLIT, StudySettings
from .study import Study

FOLDER = "filters"
"""Cache folder: the planted corpus, and one file per corpus."""
_MADE = ("command", "machine", "date")
_ATTRIBUTES, _SEVERAL = 3, 3


@dataclass(frozen=True)
class FilterSettings:
    """What is measured.

    Attributes:
        selectivities: shares of the items that match.
        users: test users of the data set, at most.
        planted_items: size of the planted corpus.
        planted_users: its users.
        compared: shares at which vector databases are compared; each with every correlation.
        compared_users: users of that comparison.
        repeats: how often each search is timed.
    """

    selectivities: tuple[float, ...] = SELECTIVITIES
    users: int = 200
    planted_items: int = ONE_MILLION
    planted_users: int = 50
    compared: tuple[float, ...] = (0.2, 0.04)
    compared_users: int = 20
    repeats: int = 3


SETTINGS = FilterSettings()
_PLANTED_SEARCH = SearchParams(200, (600,), (3,), SeedParams(800, 1600))
"""Covers 98% of the exact list without filters."""


def run(runs: Runs, settings: StudySettings) -> Json:
    """`corpora`: each corpus without and under filters; `databases`: the same scorer with candidates of databases."""
    data, name, home = runs.data, str(runs.data.manifest["name"]), runs.folder / FOLDER
    bundle = _bundle(runs, settings)
    most = settings.users or SETTINGS.users
    of_data = _of_data(bundle, runs, min(SETTINGS.users, most))
    inputs = {**asdict(SETTINGS), "data": runs.fingerprint, "bundle": bundle.identity, "users": len(of_data.users)}
    packages = {each: version(each) for each in vector_databases.installed()}

    few = min(SETTINGS.planted_users, most)

    def planted() -> Json:
        return _measured("planted", _planted(home, few), {}, runs.say)

    return {
        "top_k": of_data.params.top_k,
        "corpora": [
            cached(home, inputs, lambda: _measured(name, of_data, _attribute_filters(data, bundle), runs.say)),
            cached(home, {**asdict(SETTINGS), "corpus": "planted", "users": few}, planted),
        ],
        "databases": cached(home, {**inputs, "databases": packages}, lambda: _databases(of_data, packages, runs.say)),
    }


def _bundle(runs: Runs, settings: StudySettings) -> Bundle:
    """The bundle of the configuration `auto`, as `nann index` and `nann export` make it."""
    model = runs.get(auto_config(runs.data).config.override(seed=settings.seeds[0]))
    if not (model.bundle.path / SCORER_FILE).is_file():
        export_checkpoint(model.checkpoint, runs.data, model.bundle)
    recommend_search(Bundle.open(model.bundle.path), runs.data)
    return Bundle.open(model.bundle.path)


def _of_data(bundle: Bundle, runs: Runs, count: int) -> FilteredSearch:
    _, users = bundle_users(bundle, runs.data, SPLIT, count, 1)
    runs.say(f"scoring every item for {len(users)} users")
    return FilteredSearch.of(bundle.index, OnnxScorer.of_bundle(bundle), users, bundle.search_params)


def _planted(home: Path, users: int) -> FilteredSearch:
    corpus = PlantedCorpus.cached(home, SETTINGS.planted_items)
    scorer = PlantedScorer(corpus.vectors)
    # Drawn like items but with another random seed: no user's vector equals an item's.
    states = scorer.with_light(planted_vectors(0, users, seed=1))
    return FilteredSearch.of(
        SearchIndex(corpus.graph, corpus.vectors), scorer, UserBatch(states, None), _PLANTED_SEARCH
    )


def _attribute_filters(data: PreparedData, bundle: Bundle) -> dict[str, Uint64Array]:
    """Filters over the items' own attributes, by their texts: a frequent value of each of some, and several of one."""
    if data.attributes is None or bundle.attributes is None:
        return {}
    frequent: dict[str, list[str]] = {}
    for name, kind in data.attributes.schema.items():
        if kind in (pl.String, pl.List(pl.String)):
            values = data.attributes[name] if kind == pl.String else data.attributes[name].explode()
            counted = values.drop_nulls().value_counts(sort=True)
            frequent |= {name: counted[name].head(1 + _SEVERAL).to_list()} if len(counted) else {}
    chosen = [where(name) == values[0] for name, values in list(frequent.items())[:_ATTRIBUTES]]
    chosen += [where(name).is_in(values[1:]) for name, values in frequent.items() if len(values) > _SEVERAL][-1:]
    return {str(each): bundle.attributes.compile(each) for each in chosen}


def _measured(name: str, search: FilteredSearch, texts: Mapping[str, Uint64Array], say: Say) -> Json:
    entries = []
    for each in drawn_filters(SETTINGS.selectivities):
        say(f"{name}: {each.kind}, {each.share:.2%}")
        measures, _ = search.measure(each.matching, SETTINGS.repeats)
        entries.append({"correlation": each.kind, "selectivity": each.share, **measures})
    attributes = []
    for text, item_set in texts.items():
        matching = np.zeros(search.index.item_count, np.bool_)
        matching[item_sets.members(item_set)] = True
        measures, _ = search.measure(partial(_always, matching), SETTINGS.repeats)
        attributes.append({"filter": text, **measures})
    return {
        "corpus": name,
        "items": search.index.item_count,
        "users": len(search.users),
        "search": search_to_json(search.params),
        "unfiltered": search.unfiltered,
        "entries": entries,
        "attributes": attributes,
    }


def _always(matching: BoolArray, places: Float32Array) -> BoolArray:
    """The same items for every user."""
    return matching


def _databases(search: FilteredSearch, packages: Mapping[str, str], say: Say) -> Json:
    """Coverage of ours, and of each database with the candidates it finds, by filter, for the first users."""
    users = search.taken(SETTINGS.compared_users)
    if users.index.light_vectors is None:
        raise ConfigError("the model has no light head; databases search by its vectors: set light.enabled")
    filters = drawn_filters(SETTINGS.compared)
    rows, sets, counts = [], [], []
    for each in filters:
        measures, scored = users.measure(each.matching, 1)
        rows.append({"correlation": each.kind, "selectivity": each.share, "ours": measures})
        sets.append(np.stack([each.matching(places) for places in users.places]))
        counts.append(scored)
    sets = [each[:1] if (each == each[0]).all() else each for each in sets]
    vectors = users.index.light_vectors
    asked = Asked(light_users(users.users.states, vectors.shape[1]), sets, np.array(counts, np.int64))
    for name in packages:
        say(f"{name}: filling it with {len(vectors):,} items")
        with tempfile.TemporaryDirectory() as folder:
            found = vector_databases.found_by(name, vectors, asked, Path(folder) / "items")
            for row, matching, (items, ms) in zip(rows, sets, found, strict=True):
                best = ScoredPool.of(users.scorer, users.users.states, items).best(items.shape[1], users.params.top_k)
                exact = [users.exact(user, matching[user % len(matching)]) for user in range(len(users.users))]
                row[name] = {"coverage": coverage(best.items, np.concatenate(exact)), "p50_ms": ms}
    return {"users": len(users.users), "versions": dict(packages), "rows": rows}


def joined(stored: Json, entry: Json) -> Json:
    """The entry, with where its figures come from also in the result, for the headline."""
    made = {key: entry["provenance"][key] for key in _MADE}
    return {**entry, "result": {**entry["result"], "made": made}}


def headline(result: Json, data: str) -> dict[str, Json]:
    """`filters`: one entry for each corpus, correlation and selectivity; what they come from; and the databases."""
    entries = [
        {"corpus": corpus["corpus"], "items": corpus["items"], **entry, "unfiltered": corpus["unfiltered"]["coverage"]}
        for corpus in result["corpora"]
        for entry in corpus["entries"]
    ]
    return {"filters": {**result["made"], "entries": entries, "databases": result["databases"]}}


STUDY = Study(
    "filters",
    "Searches under filters",
    run,
    markdown,
    {"filters.png": plot},
    headline,
    joined,
    configs=lambda settings: [],  # the data set chooses it
    inputs=lambda settings: asdict(SETTINGS),
    data_inputs=lambda data: {"auto": auto_config(data).config.fingerprint},
)
