"""Builds a bundle from item vectors: HNSW graph (hnswlib), CSR layers, files (paper, sections 3.3 and 5.1)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

import hnswlib
import numpy as np
import numpy.typing as npt
from rich.progress import Progress

from nann.bundle import ITEM_IDS_FILE, ITEM_NAMES_FILE, ITEM_VECTORS_FILE, LIGHT_VECTORS_FILE, Bundle, write_manifest
from nann.bundle_check import check_searches
from nann.durable_files import entries, new_folder
from nann.errors import BundleError, DataError
from nann.filters.named import checked_named
from nann.filters.predicate import Predicate
from nann.graph import HnswGraph, Layer
from nann.item_ids import NUMBERS, GivenIds, IdKind, Ids, kind_of, shown
from nann.manifest import ID_KIND, MANIFEST_FILE, search_to_json
from nann.reachability import Reachability
from nann.scorer import Float32Array
from nann.search_input import SearchIndex
from nann.search_params import SearchOptions
from nann.search_requests import SERVED_BOUNDS, SearchBounds

from ..config import IndexConfig, SearchConfig
from ..data.item_columns import catalogue_of
from .copies import Copies
from .recommended import fitted, recommended_searches

_ADD_CHUNK = 10_000
_CONVERT_CHUNK = 1 << 18
_DEFAULT_INDEX = IndexConfig()
_DEFAULT_SEARCH = SearchConfig()
_NOTHING_ASKED = SearchOptions()


def build_hnsw(
    vectors: npt.NDArray[np.float32],
    config: IndexConfig,
    *,
    threads: int = -1,
    progress: Progress | None = None,
) -> hnswlib.Index:
    """Builds an HNSW index on L2 distance.

    Args:
        vectors: `float32[N, d]`, row = item index = hnswlib label.
        config: M, ef_construction and random seed.
        threads: hnswlib's threads; -1: all cores. With 1 thread the same vectors give the same graph.
        progress: shows a bar if given.
    """
    index = hnswlib.Index(space="l2", dim=vectors.shape[1])
    index.init_index(
        max_elements=len(vectors), M=config.m, ef_construction=config.ef_construction, random_seed=config.seed
    )
    task = progress.add_task("HNSW graph", total=len(vectors)) if progress else None
    for start in range(0, len(vectors), _ADD_CHUNK):
        chunk = vectors[start : start + _ADD_CHUNK]
        index.add_items(chunk, np.arange(start, start + len(chunk)), num_threads=threads)
        if progress and task is not None:
            progress.advance(task, len(chunk))
    return index


def graph_from_hnswlib(index: hnswlib.Index, entry_layer: int) -> HnswGraph:
    """Converts the graph of an index with labels 0..N-1 to CSR layers whose rows are labels.

    Searches enter at `entry_layer`, or at the graph's highest layer if that is lower.
    """
    state = index.__getstate__()[0]
    count, m0 = state["cur_element_count"], state["max_M0"]
    labels = np.empty(count, np.int64)  # internal id -> label
    labels[state["label_lookup_internal"]] = state["label_lookup_external"]
    levels = state["element_levels"][:count]
    elements = state["data_level0"].reshape(-1, state["size_data_per_element"])[:count]
    layers = [_to_layer(elements[:, : 4 + 4 * m0], labels, labels, count)]
    lists = state["link_lists"].reshape(-1, state["size_links_per_element"])
    first_list = np.cumsum(levels) - levels  # an element of level l has l consecutive lists, layer 1 first
    for number in range(1, state["max_level"] + 1):
        on_layer = np.flatnonzero(levels >= number)
        rows = lists[first_list[on_layer] + number - 1]
        layers.append(_to_layer(rows, labels[on_layer], labels, count))
    item_levels = np.empty(count, np.uint8)
    item_levels[labels] = levels
    top = len(layers) - 1
    graph = HnswGraph(tuple(layers), item_levels, min(entry_layer, top), int(labels[state["enterpoint_node"]]))
    graph.validate()
    return graph


def build_graph(
    vectors: npt.NDArray[np.float32],
    copies: Copies,
    config: IndexConfig,
    *,
    threads: int = -1,
    progress: Progress | None = None,
) -> HnswGraph:
    """The graph of a bundle: HNSW on one item of each vector, to which the others are attached.

    Args:
        vectors: `float32[N, d]`, row = item index.
        copies: of these vectors.
        config: M, ef_construction, entry layer and random seed.
        threads: hnswlib's threads.
        progress: shows a bar if given.
    """
    index = build_hnsw(vectors[copies.originals], config, threads=threads, progress=progress)
    return copies.attach(graph_from_hnswlib(index, config.entry_layer), fan_out=config.m)


def create_bundle(
    out: Path,
    *,
    item_ids: GivenIds,
    item_vectors: npt.NDArray[np.float32],
    sequence_length: int,
    index: IndexConfig = _DEFAULT_INDEX,
    search: SearchConfig = _DEFAULT_SEARCH,
    asked: SearchOptions = _NOTHING_ASKED,
    light_vectors: npt.NDArray[np.float32] | None = None,
    item_names: Sequence[str] | None = None,
    attributes: Mapping[str, Any] | None = None,
    filters: Mapping[str, str | Predicate] | None = None,
    profile_fields: Sequence[Mapping[str, Any]] = (),
    provenance: Mapping[str, Any] | None = None,
    bounds: SearchBounds = SERVED_BOUNDS,
    threads: int = -1,
    progress: Progress | None = None,
) -> Bundle:
    """Builds the graph and writes a bundle without ONNX files, which the export adds.

    Args:
        out: the bundle's folder; replaced if it holds a bundle.
        item_ids: `int64[N]` external ids, positive, other integer types are converted; or N texts. Strictly ascending;
            texts as Python's `sorted` orders them.
        item_vectors: `float32[N, d]`, e_v of each item.
        sequence_length: how many behaviours the user encoder reads.
        index: HNSW parameters.
        search: recommended search parameters for entry "layers".
        asked: what the bundle recommends instead for requests that set no parameters, and with which entry. By default
            it is entry "seeds" if there are light vectors.
        light_vectors: `float32[N, d']`, item vectors of a light score (docs/custom_scorer.md). None: the bundle has no
            light score, and every search enters by the layers, as in the paper.
        item_names: one name per item, for people.
        attributes: for filters (docs/filters.md), by name: N values, None where an item has none. Booleans are a flag,
            whole numbers and floats a number, texts a category, lists of texts or whole numbers several categories.
        filters: filters to offer under a name: by name a text, or what is built with `nann.filters.where`.
        profile_fields: name and values of each user profile field.
        provenance: anything else for the notes, such as data set and training configuration.
        bounds: the most that the server's requests may ask for, and so the most to recommend.
        threads: hnswlib's threads.
        progress: shows a bar if given.

    Raises:
        DataError: if the ids are not valid, their number is not that of the vectors, a vector is not finite, or the
            values of an attribute are not one of an item each, of another type, or infinite.
        ConfigError: if there are fewer items than the recommended top_k, or `search` lacks values for a layer.
        RequestError: if `asked` does not fit together.
        FilterError: if a named filter can't be read, or does not fit the attributes.
        BundleError: if `out` exists and is not a bundle, no search could reach more than 5% of the items, or a
            recommended search exceeds the bounds or leaves places of a result empty.
    """
    check_folder(out)
    vectors = _checked_vectors("item_vectors", item_vectors)
    kind = kind_of(item_ids)
    ids = _checked_ids(item_ids, kind, len(vectors))
    light = None if light_vectors is None else _checked_vectors("light_vectors", light_vectors, ids)
    catalogue = catalogue_of(attributes or {}, len(ids))
    named = checked_named(filters or {}, catalogue)
    searches = recommended_searches(search, asked, len(ids), light=light is not None, bounds=bounds)
    copies = Copies.of(vectors)
    graph = build_graph(vectors, copies, index, threads=threads, progress=progress)
    reachability = Reachability.require(graph)
    recommended = [fitted(one, graph.entry_layer) for one in searches]
    check_searches(SearchIndex(graph, light), recommended)
    arrays: dict[str, npt.NDArray[Any]] = {ITEM_IDS_FILE: ids, ITEM_VECTORS_FILE: vectors}
    if light is not None:
        arrays[LIGHT_VECTORS_FILE] = light
    manifest = {
        **({} if kind is NUMBERS else {ID_KIND: kind.name}),
        "item_count": len(ids),
        "vector_dim": vectors.shape[1],
        "sequence_length": sequence_length,
        "profile_fields": list(profile_fields),
        "graph": graph_summary(graph, index),
        "search": search_to_json(recommended[0]),
        "search_by_entry": {one.entry: search_to_json(one) for one in recommended[1:]},
    }
    notes = {
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "tools": {name: version(name) for name in ("nann", "hnswlib", "numpy")},
        "provenance": dict(provenance or {}),
        "reachability": {"items_with_another_items_vector": len(copies), **reachability.summary()},
    }
    with new_folder(out) as folder:
        files = _save(folder, arrays, graph, item_names)
        if catalogue.names:
            manifest["attributes"], of_attributes = catalogue.save(folder)
            files += of_attributes
        if named:
            manifest["filters"] = named
        write_manifest(folder, manifest, files).note(**notes)
    return Bundle.open(out, files=[])


def _to_layer(
    rows: npt.NDArray[np.int8], owners: npt.NDArray[np.int64], labels: npt.NDArray[np.int64], item_count: int
) -> Layer:
    # hnswlib's link list: a 2-byte count, 2 bytes of flags, then 4-byte internal ids of which `count` are valid.
    by_label = np.argsort(owners)
    degrees, neighbors = [np.empty(0, np.uint16)], [np.empty(0, np.int32)]
    for start in range(0, len(by_label), _CONVERT_CHUNK):  # the lists of a large graph are gigabytes
        block = rows[by_label[start : start + _CONVERT_CHUNK]]
        degrees.append(block[:, :2].copy().view(np.uint16)[:, 0])
        links = block[:, 4:].copy().view(np.uint32)
        neighbors.append(labels[links[np.arange(links.shape[1]) < degrees[-1][:, None]]].astype(np.int32))
    counts = np.zeros(item_count, np.int64)
    counts[owners[by_label]] = np.concatenate(degrees)
    return Layer.of(counts, np.concatenate(neighbors))


def _checked_ids(item_ids: GivenIds, kind: IdKind, count: int) -> Ids:
    """The ids as the bundle holds them, one per vector and strictly ascending."""
    ids = kind.stored(item_ids)
    if len(ids) != count:
        raise DataError(f"{len(ids)} item ids came with {count} item vectors; expected one id per vector")
    if (falls := np.flatnonzero(ids[1:] <= ids[:-1])).size:
        row = int(falls[0])
        before, after = map(shown, kind.plain(ids[row : row + 2]))
        twice = "the same item twice" if ids[row] == ids[row + 1] else "sort ids and vectors together"
        raise DataError(f"item ids must be strictly ascending, and row {row + 1:,} has {after} after {before}: {twice}")
    return ids


def _checked_vectors(name: str, given: npt.NDArray[Any], ids: npt.NDArray[Any] | None = None) -> Float32Array:
    """Vectors as the bundle holds them: finite and `float32[N, d]`."""
    vectors = np.ascontiguousarray(given, np.float32)
    if vectors.ndim != 2 or not vectors.shape[1] or (ids is not None and len(vectors) != len(ids)):
        rows = "N" if ids is None else len(ids)
        raise DataError(f"{name} has shape {list(vectors.shape)}; expected [{rows}, any]")
    broken = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if broken.size:
        raise DataError(
            f"{name} has {broken.size} rows that are not finite, the first is {broken[0]}: a diverged training gives "
            "NaN everywhere (lower the learning rate), items without data here and there"
        )
    return vectors


def graph_summary(graph: HnswGraph, config: IndexConfig) -> dict[str, Any]:
    """What the manifest says of a graph."""
    return {
        "m": config.m,
        "ef_construction": config.ef_construction,
        "seed": config.seed,
        "entry_layer": graph.entry_layer,
        "hnsw_entry_point": graph.hnsw_entry_point,
        "layer_count": len(graph.layers),
        "layer_sizes": list(graph.layer_sizes),
        "mean_ground_degree": round(len(graph.layers[0].neighbors) / graph.item_count, 2),
    }


def check_folder(out: Path) -> None:
    """Raises BundleError if a folder, which a bundle shall replace, holds something else."""
    if out.is_file() or (out.exists() and entries(out) and not _holds_bundle(out)):
        raise BundleError(f"{out} exists and is not a bundle; choose another folder or remove it")


def _holds_bundle(folder: Path) -> bool:
    """Whether its manifest is a bundle's, of whatever release; a damaged one counts as such."""
    path = folder / MANIFEST_FILE
    if not path.is_file():
        return False
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        return True
    return not isinstance(manifest, dict) or "kind" not in manifest  # prepared data sets and others name theirs


def _save(
    folder: Path, arrays: Mapping[str, npt.NDArray[Any]], graph: HnswGraph, item_names: Sequence[str] | None
) -> list[str]:
    """Writes a bundle's files and returns their names."""
    for name, array in arrays.items():
        np.save(folder / name, array, allow_pickle=False)
    files = [*arrays, *graph.save(folder)]
    if item_names is not None:
        lines = "\n".join(name.replace("\n", " ") for name in item_names)
        (folder / ITEM_NAMES_FILE).write_text(lines + "\n", encoding="utf-8")
        files.append(ITEM_NAMES_FILE)
    return files
