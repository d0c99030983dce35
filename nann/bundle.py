"""The bundle: one folder with everything that serving needs, and a manifest to verify it with.

    manifest.json            what decides the answers: format version, counts, graph and search parameters, shape grid,
                             sha256 and size of each file
    notes.json               optional: what was measured, and where the bundle comes from (`nann.bundle_notes`)
    item_ids.npy             int64[N], or S[N] of text ids (`nann.item_ids`), ascending: item index -> external id
    behavior_ids.npy         optional: int64[T] or S[T], ascending: behaviour index -> external id, if the user encoder
                             knows other items than these N (`nann refresh`)
    item_vectors.npy         float32[N, d]: e_v
    levels.npy, layerN.*.npy the HNSW graph (`nann.graph`)
    light_vectors.npy        optional: float32[N, d'], the items' vectors for the light score (`nann.light_walk`)
    item_names.txt           optional: one line per item, for people
    attributeC.*             optional: columns of the items' attributes, for filters (`nann.filters.columns`)
    user_encoder.onnx, scorer.onnx
    item_rows.npy            optional: float32[N, R], what the scorer needs of each item, if it has no item table
                             (`nann export --item-rows`, `nann.item_rows`)
    scorer.native.npz, scorer.check.npz  optional: for other engines (`nann.native_scorer`, `nann.scorer_check`)
    scorer.fp16.onnx         optional: the scorer in half precision, for GPUs (`nann export --half`)
    item_encoder.onnx, item_fields.json
                             optional: places an item by its attributes (`nann.item_encoder`), and their codes
    warmup.*.npy             optional: one real request's tensors, to warm up with (`nann plan-shapes`)

Arrays are memory-mapped read-only. Nothing in a bundle is executable or pickled.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nann.array_files import load_array
from nann.bundle_notes import NOTES_FILE, read_notes, without_notes
from nann.durable_files import write_json
from nann.errors import BundleError
from nann.features import FeatureTransform, profile_codes
from nann.filters.catalogue import Catalogue, attribute_files
from nann.graph import HnswGraph, graph_files
from nann.item_ids import KINDS, NUMBERS, IdKind, Ids
from nann.item_rows import ItemRows
from nann.manifest import (
    FORMAT_VERSION,
    ID_KIND,
    MANIFEST_FILE,
    read_manifest,
    search_from_json,
    sha256_of,
    verify_file,
)
from nann.search_input import SearchIndex
from nann.search_params import SearchParams
from nann.shape_grid import ShapeGrid
from nann.signature import ROW_SCORER, SCORER, USER_ENCODER, ModelSpec

ITEM_IDS_FILE = "item_ids.npy"
BEHAVIOR_IDS_FILE = "behavior_ids.npy"
ITEM_VECTORS_FILE = "item_vectors.npy"
ITEM_NAMES_FILE = "item_names.txt"
LIGHT_VECTORS_FILE = "light_vectors.npy"
USER_ENCODER_FILE = "user_encoder.onnx"
SCORER_FILE = "scorer.onnx"
SCORER_HALF_FILE = "scorer.fp16.onnx"
ITEM_ROWS_FILE = "item_rows.npy"
ITEM_ENCODER_FILE = "item_encoder.onnx"
ITEM_FIELDS_FILE = "item_fields.json"
WARMUP_FILES = {
    tensor.name: f"warmup.{tensor.name}.npy" for spec in (USER_ENCODER, SCORER, ROW_SCORER) for tensor in spec.inputs
}
"""By tensor name: one row of it from a real request, to warm up a GPU with."""


@dataclass(frozen=True)
class Bundle:
    """An opened bundle. Open one with `Bundle.open`."""

    path: Path
    manifest: Mapping[str, Any]

    @classmethod
    def open(cls, path: Path | str, files: Iterable[str] | None = None) -> Bundle:
        """Reads the manifest and verifies the files' hashes.

        Args:
            path: the bundle's folder.
            files: names of the files that will be used (None: all); only these must exist and are verified.

        Raises:
            BundleError: naming the file, what was found and what was expected.
        """
        path = Path(path)
        manifest = read_manifest(path)
        listed = manifest["files"]
        for name in listed if files is None else files:
            if name not in listed:
                raise BundleError(f"{path / MANIFEST_FILE} does not list {name}; run `nann export`")
            verify_file(path / name, listed[name])
        return cls(path, manifest)

    @property
    def bundle_id(self) -> str:
        """Hash over all files' hashes: two bundles with the same id have the same files."""
        return str(self.manifest["bundle_id"])

    @property
    def identity(self) -> str:
        """Hash over all that decides the answers: files, search defaults, shape grid, export. Notes do not count."""
        return _short_hash(without_notes(self.manifest))

    @property
    def notes(self) -> dict[str, Any]:
        """The notes about the bundle, read from its files each time."""
        return read_notes(self.path, self.manifest)

    def note(self, **notes: Any) -> None:
        """Adds notes, in place of those with the same names. The manifest and the files it lists do not change."""
        write_json(self.path / NOTES_FILE, {**self.notes, **notes})

    def change(self, *, written: Iterable[str] = (), removed: Iterable[str] = (), **entries: Any) -> Bundle:
        """Rewrites the manifest, which gives the bundle another identity.

        Args:
            written: names of files that are new or changed; only these are read and hashed.
            removed: names of deleted files.
            entries: entries of the manifest to replace.

        Returns:
            The changed bundle.
        """
        own, gone = without_notes(self.manifest), set(removed)
        if len(own) < len(self.manifest):
            self.note()  # moves the notes that an older manifest holds
        files = {name: entry for name, entry in self.manifest["files"].items() if name not in gone}
        for name in written:
            path = self.path / name
            files[name] = {"sha256": sha256_of(path), "bytes": path.stat().st_size}
        files = dict(sorted(files.items()))
        body = {**own, **entries, "format_version": FORMAT_VERSION, "bundle_id": _short_hash(files), "files": files}
        write_json(self.path / MANIFEST_FILE, body)
        return Bundle(self.path, body)

    @property
    def item_count(self) -> int:
        """N."""
        return int(self.manifest["item_count"])

    @property
    def sequence_length(self) -> int:
        """How many behaviours the user encoder reads."""
        return int(self.manifest["sequence_length"])

    @property
    def profile_width(self) -> int:
        """Columns of `profile_codes`: one per user profile field, or one of zeros if there are no fields."""
        return max(len(self.manifest["profile_fields"]), 1)

    def profile_codes(self, users: Sequence[Mapping[str, Any]]) -> npt.NDArray[np.int64]:
        """The request's `user_profile` for users whose profiles are given as values: `nann.features.profile_codes`."""
        return profile_codes(self.manifest["profile_fields"], users)

    @property
    def user_state_width(self) -> int:
        """S, columns of `user_state`.

        Raises:
            BundleError: if the bundle has no exported models yet.
        """
        if "export" not in self.manifest:
            raise BundleError(f"{self.path / MANIFEST_FILE} states no width of user_state; run `nann export`")
        return int(self.manifest["export"]["user_state_width"])

    @property
    def item_row_width(self) -> int:
        """R, columns of `item_rows`; 0 if the scorer has an item table among its weights."""
        return _row_width(self.manifest)

    @property
    def exported_models(self) -> dict[str, ModelSpec]:
        """Signatures of the user encoder and of the scorer in the form that this bundle has, by name of the model."""
        return {spec.name: spec for spec in (USER_ENCODER, ROW_SCORER if self.item_row_width else SCORER)}

    @property
    def search_params(self) -> SearchParams:
        """The recommended top_k, ef and rounds: the server's defaults."""
        return search_from_json(self.manifest["search"])

    @property
    def search_by_entry(self) -> dict[str, SearchParams]:
        """The recommended parameters for each entry strategy (`nann.signature.ENTRIES`) that this bundle can serve."""
        chosen = self.search_params
        others = {name: search_from_json(body) for name, body in self.manifest.get("search_by_entry", {}).items()}
        return {**others, chosen.entry: chosen}

    @property
    def shape_grid(self) -> ShapeGrid:
        """The shapes at which the scorer is called on a GPU: planned by `nann plan-shapes`, or the default ones."""
        return ShapeGrid.of_manifest(self.manifest)

    @property
    def id_kind(self) -> IdKind:
        """Whether the items' ids are numbers or text."""
        return KINDS[self.manifest.get(ID_KIND, NUMBERS.name)]

    @cached_property
    def item_ids(self) -> Ids:
        """`int64[N]`, or `S[N]` of text ids, ascending."""
        ids = self.id_kind.load(self.path / ITEM_IDS_FILE)
        if ids.shape[0] != self.item_count or np.any(ids[1:] <= ids[:-1]):
            raise BundleError(f"{self.path / ITEM_IDS_FILE} is not {self.item_count} ids in strictly ascending order")
        return ids

    def external_ids(self, items: npt.NDArray[np.int32]) -> Ids:
        """External ids of item indices, int32[...] -> int64[...], or object[...] of text ids.

        -1, padding, stays -1; among text ids it is "".
        """
        return self.id_kind.external(self.item_ids, items, self.id_kind.padding)

    @cached_property
    def item_vectors(self) -> npt.NDArray[np.float32]:
        """`float32[N, d]`."""
        return load_array(self.path / ITEM_VECTORS_FILE, np.float32, 2)

    @cached_property
    def light_vectors(self) -> npt.NDArray[np.float32] | None:
        """`float32[N, d']`, or None where the bundle's model has no light score."""
        if LIGHT_VECTORS_FILE not in self.manifest["files"]:
            return None
        return load_array(self.path / LIGHT_VECTORS_FILE, np.float32, 2)

    @cached_property
    def item_rows(self) -> ItemRows | None:
        """What the scorer needs of each item, or None where it has an item table among its weights."""
        if not self.item_row_width:
            return None
        rows = load_array(self.path / ITEM_ROWS_FILE, np.float32, 2)
        if rows.shape != (self.item_count, self.item_row_width):
            raise BundleError(
                f"{self.path / ITEM_ROWS_FILE} has shape {list(rows.shape)}; expected "
                f"{[self.item_count, self.item_row_width]}; run `nann export` again"
            )
        return ItemRows(rows)

    @cached_property
    def item_names(self) -> list[str] | None:
        """One name per item, or None if the data set has no names."""
        path = self.path / ITEM_NAMES_FILE
        if not path.exists():
            return None
        try:
            names = path.read_text(encoding="utf-8").split("\n")[: self.item_count]
        except UnicodeDecodeError as error:
            raise BundleError(f"{path} is not UTF-8: {error}; make the bundle again") from error
        if len(names) != self.item_count:
            raise BundleError(f"{path} has {len(names)} lines; expected {self.item_count}, one per item")
        return names

    @cached_property
    def graph(self) -> HnswGraph:
        """The HNSW graph, every index checked."""
        info = self.manifest["graph"]
        graph = HnswGraph.load(
            self.path, int(info["layer_count"]), int(info["entry_layer"]), int(info["hnsw_entry_point"])
        )
        if graph.item_count != self.item_count:
            raise BundleError(f"the graph has {graph.item_count} items and the manifest says {self.item_count}")
        graph.validate()
        return graph

    @cached_property
    def index(self) -> SearchIndex:
        """What searches walk: the graph and its light vectors."""
        listed = self.manifest["files"].get(LIGHT_VECTORS_FILE, {})
        return SearchIndex(self.graph, self.light_vectors, light_key=listed.get("sha256"))

    @cached_property
    def attributes(self) -> Catalogue | None:
        """The items' attributes, which compile filters; None where the bundle has none."""
        listed = self.manifest.get("attributes", {})
        return Catalogue.load(self.path, listed, self.item_count) if listed else None

    @property
    def filters(self) -> Mapping[str, str]:
        """The filters that the bundle's maker has named: text by name."""
        return dict(self.manifest.get("filters", {}))

    @cached_property
    def features(self) -> FeatureTransform:
        """Maps requests to the user encoder's inputs."""
        sizes = tuple(len(field["values"]) + 1 for field in self.manifest["profile_fields"])
        known = (
            self.id_kind.load(self.path / BEHAVIOR_IDS_FILE) if BEHAVIOR_IDS_FILE in self.manifest["files"] else None
        )
        if known is not None and (not len(known) or np.any(known[1:] <= known[:-1])):
            raise BundleError(f"{self.path / BEHAVIOR_IDS_FILE} is not one id or more in strictly ascending order")
        return FeatureTransform(self.item_ids, self.sequence_length, sizes, known)


def feature_file_names(manifest: Mapping[str, Any]) -> list[str]:
    """Names of the files that `Bundle.features` reads in a bundle with this manifest."""
    return [ITEM_IDS_FILE, *([BEHAVIOR_IDS_FILE] if BEHAVIOR_IDS_FILE in manifest["files"] else [])]


def search_file_names(manifest: Mapping[str, Any]) -> list[str]:
    """Names of the files that a search reads in a bundle with this manifest."""
    light = [LIGHT_VECTORS_FILE] if LIGHT_VECTORS_FILE in manifest["files"] else []
    rows = [ITEM_ROWS_FILE] if _row_width(manifest) else []
    of_items = [name for name in manifest["files"] if name.startswith((ITEM_ENCODER_FILE, ITEM_FIELDS_FILE))]
    graph = graph_files(int(manifest["graph"]["layer_count"]))
    return [
        *feature_file_names(manifest),
        *graph,
        *light,
        *rows,
        *of_items,
        *attribute_files(manifest.get("attributes", {})),
    ]


def _row_width(manifest: Mapping[str, Any]) -> int:
    return int(manifest.get("export", {}).get("item_row_width", 0))


def write_manifest(path: Path, manifest: Mapping[str, Any], files: Iterable[str]) -> Bundle:
    """Hashes all `files` and writes the manifest, last and atomically: a folder without one is no bundle.

    Args:
        path: the bundle's folder, the files already in it.
        manifest: everything but `format_version`, `bundle_id` and `files`.
        files: names of all the bundle's files.
    """
    return Bundle(path, {"files": {}}).change(written=files, **manifest)


def _short_hash(body: Any) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()[:16]
