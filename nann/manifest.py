"""Reads a bundle's manifest and checks all of it before other files are opened: it may come from a third party."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nann.errors import BundleError, ConfigError, RequestError
from nann.filters.columns import TYPES
from nann.filters.named import NAME
from nann.found_once import found_once
from nann.item_ids import KINDS
from nann.search_params import SearchParams, SeedParams
from nann.shape_grid import ShapeGrid

FORMAT_VERSION = 1
MANIFEST_FILE = "manifest.json"
ID_KIND = "item_id_kind"
"""The entry for the kind of the item ids; without it they are numbers."""
JOURNAL_SEQUENCE = "journal_sequence"
"""The entry for the last change of items (`nann.catalog`) that a bundle's data has; without it, none."""
MAX_LAYERS = 256
"""Levels are stored as uint8."""

_INT32_MAX = 2**31 - 1
# A plain name in the bundle's own folder, on every system.
_FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,254}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


def read_manifest(folder: Path) -> Mapping[str, Any]:
    """Reads and checks `manifest.json` of a bundle.

    Raises:
        BundleError: naming the key, what came and what was expected.
    """
    path = folder / MANIFEST_FILE
    if not path.is_file():
        raise BundleError(f"{folder} is not a bundle: it has no {MANIFEST_FILE}; make one with `nann index`")
    require_inside(path)
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{path} is not JSON: {error}; make the bundle again") from error
    if not isinstance(manifest, dict):
        raise BundleError(f"{path} holds no JSON object; make the bundle again")
    version = manifest.get("format_version")
    if version != FORMAT_VERSION:
        raise BundleError(f"{path} has format version {_shown(version)}; this release reads version {FORMAT_VERSION}")
    _check(str(path), manifest, _RULES)
    for name, entry in manifest["files"].items():
        if _FILE_NAME.fullmatch(name) is None:
            raise BundleError(
                f"{path} lists a file {_shown(name)}; expected a plain name of letters, digits, '_', '-' and '.': "
                "a bundle's files are in its own folder"
            )
        _check(f"{path}: files: {name}", entry, _FILE_RULES)
    _check_search(f"{path}: search", manifest["search"], manifest["graph"]["entry_layer"])
    for entry, search in manifest.get("search_by_entry", {}).items():
        _check_search(f"{path}: search_by_entry: {_shown(entry)}", search, manifest["graph"]["entry_layer"])
    _check_shapes(str(path), manifest)
    return manifest


def require_inside(path: Path) -> None:
    """Refuses a file that is a link to somewhere outside its folder.

    Raises:
        BundleError: naming the file that it links to.
    """
    resolved = path.resolve()
    if resolved.parent != path.parent.resolve():
        raise BundleError(f"{path} is a link to {resolved}, outside its folder; put the file itself there")


def verify_file(path: Path, entry: Mapping[str, Any], found: Path | None = None) -> None:
    """Compares one file with its manifest entry. The processes of a server hash a file once, unless it is written to.

    Args:
        path: the file.
        entry: its size and hash.
        found: folder of what a server's processes have found; None: that of this process (`nann.found_once`).

    Raises:
        BundleError: if it is missing or leads out of its folder, or its size or hash differs.
    """
    if not path.is_file():
        raise BundleError(f"{path} is missing; make the bundle again with `nann index` and `nann export`")
    require_inside(path)
    now = path.stat()
    if now.st_size != entry["bytes"]:
        raise BundleError(f"{path} has {now.st_size} bytes; the manifest says {entry['bytes']}; make the bundle again")
    same_file = f"sha256-{now.st_dev}-{now.st_ino}-{now.st_ctime_ns}"  # every write changes the last
    digest = found_once(same_file, lambda: sha256_of(path), found)
    if digest != entry["sha256"]:
        raise BundleError(
            f"{path} has sha256 {digest[:12]}...; the manifest says {entry['sha256'][:12]}...: "
            "the file was changed after the bundle was made; make the bundle again"
        )


def sha256_of(path: Path) -> str:
    """Hex sha256 of a file."""
    digest, block = hashlib.sha256(), memoryview(bytearray(1 << 20))
    with path.open("rb", buffering=0) as stream:
        while count := stream.readinto(block):
            digest.update(block[:count])
    return digest.hexdigest()


def search_from_json(body: Mapping[str, Any]) -> SearchParams:
    """Search parameters from the manifest's JSON."""
    seeds = SeedParams(**body["seeds"]) if "seeds" in body else None
    ef, rounds = tuple(body["ef"]), tuple(body["rounds"])
    return SearchParams(int(body["top_k"]), ef, rounds, seeds, every_item=body.get("every_item", False))


def search_to_json(params: SearchParams) -> dict[str, Any]:
    """Search parameters as JSON, for the manifest and for results; `search_from_json` is the reverse."""
    body: dict[str, Any] = {"top_k": params.top_k, "ef": list(params.ef), "rounds": list(params.rounds)}
    if params.seeds is not None:
        body["seeds"] = asdict(params.seeds)
    if params.every_item:
        body["every_item"] = True
    return body


@dataclass(frozen=True)
class _Rule:
    """What a value must be, in words and as a test."""

    expected: str
    holds: Callable[[Any], bool]
    optional: bool = False


def _whole(low: int, high: int = _INT32_MAX, *, optional: bool = False) -> _Rule:
    return _Rule(f"a whole number from {low} to {high}", lambda value: _is_whole(value, low, high), optional)


def _is_whole(value: Any, low: int, high: int = _INT32_MAX) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _is_list(value: Any, holds: Callable[[Any], bool]) -> bool:
    return isinstance(value, list) and all(holds(part) for part in value)


def _holds_all(value: Any, rules: Mapping[str, _Rule]) -> bool:
    return isinstance(value, dict) and all(
        rule.holds(value[key]) if key in value else rule.optional for key, rule in rules.items()
    )


def _object(rules: Mapping[str, _Rule], *, optional: bool = False) -> _Rule:
    words = ", ".join(f"{key}: {rule.expected}" for key, rule in rules.items())
    return _Rule(f"an object with {words}", lambda value: _holds_all(value, rules), optional)


def _numbers(low: int) -> _Rule:
    return _Rule(
        f"a list of whole numbers >= {low}",
        lambda value: _is_list(value, lambda part: _is_whole(part, low)) and 1 <= len(value) <= MAX_LAYERS,
    )


def _is_profile_field(field: Any) -> bool:
    return (
        isinstance(field, dict)
        and isinstance(field.get("values"), list)
        and _is_list(field.get("edges", []), lambda edge: isinstance(edge, (int, float)))
    )


def _is_attribute(entry: Any) -> bool:
    return isinstance(entry, dict) and entry.get("type") in TYPES and _is_whole(entry.get("column"), 0)


def _is_named_filter(name: str, text: Any) -> bool:
    return NAME.fullmatch(name) is not None and isinstance(text, str)


_FILE_RULES = {
    "sha256": _Rule("64 hex digits", lambda value: isinstance(value, str) and _SHA256.fullmatch(value) is not None),
    "bytes": _whole(0, 2**63 - 1),
}
_SEED_RULES = {"count": _whole(1), "ef": _whole(1)}
_SEARCH_RULES = {
    "top_k": _whole(1),
    "ef": _numbers(1),
    "rounds": _numbers(0),
    "every_item": _Rule("true or false", lambda value: isinstance(value, bool), optional=True),
}
_GRAPH_RULES = {
    "layer_count": _whole(1, MAX_LAYERS),
    "entry_layer": _whole(0, MAX_LAYERS - 1),
    "hnsw_entry_point": _whole(0),
}
_GRID_RULES = {"batch_sizes": _numbers(1), "widths": _numbers(1)}
_RULES = {
    "bundle_id": _Rule("a text", lambda value: isinstance(value, str)),
    "item_count": _whole(1),
    ID_KIND: _Rule(" or ".join(KINDS), lambda value: isinstance(value, str) and value in KINDS, optional=True),
    "sequence_length": _whole(1, 1 << 16),
    "profile_fields": _Rule(
        "a list of objects with a list of values, and for numbers a list of edges",
        lambda value: _is_list(value, _is_profile_field),
    ),
    "graph": _object(_GRAPH_RULES),
    "search": _object(_SEARCH_RULES),
    "files": _Rule("an object", lambda value: isinstance(value, dict)),
    "search_by_entry": _Rule("an object", lambda value: isinstance(value, dict), optional=True),
    "export": _object(
        {
            "user_state_width": _whole(1, 1 << 24),
            "item_row_width": _whole(0, 1 << 24, optional=True),
            "native": _Rule("an object or null", lambda value: value is None or isinstance(value, dict), optional=True),
        },
        optional=True,
    ),
    "attributes": _Rule(
        f"an object of objects, each with a column number and a type out of {', '.join(TYPES)}",
        lambda value: isinstance(value, dict) and all(map(_is_attribute, value.values())),
        optional=True,
    ),
    "filters": _Rule(
        "an object of texts, under names of letters, digits, '_', '-' and '.'",
        lambda value: isinstance(value, dict) and all(_is_named_filter(*item) for item in value.items()),
        optional=True,
    ),
    "shape_grid": _object(_GRID_RULES, optional=True),
    JOURNAL_SEQUENCE: _Rule("a whole number from 0", lambda value: _is_whole(value, 0, 2**63 - 1), optional=True),
}


def _check(where: str, body: Any, rules: Mapping[str, _Rule]) -> None:
    if not isinstance(body, dict):
        raise BundleError(f"{where} is {_shown(body)}; expected an object; make the bundle again")
    missing = [key for key, rule in rules.items() if key not in body and not rule.optional]
    if missing:
        raise BundleError(f"{where} lacks {', '.join(missing)}; make the bundle again")
    for key, rule in rules.items():
        if key in body and not rule.holds(body[key]):
            raise BundleError(f"{where}: {key} is {_shown(body[key])}; expected {rule.expected}; make the bundle again")


def _check_search(where: str, body: Any, entry_layer: int) -> None:
    _check(where, body, _SEARCH_RULES)
    if "seeds" in body and (not _holds_all(body["seeds"], _SEED_RULES) or set(body["seeds"]) != set(_SEED_RULES)):
        raise BundleError(f"{where}: seeds is {_shown(body['seeds'])}; expected count and ef; make the bundle again")
    try:
        params = search_from_json(body)
    except RequestError as error:
        raise BundleError(f"{where}: {error}; make the bundle again") from error
    layers = params.layer_count(entry_layer)
    if len(params.ef) != layers:
        raise BundleError(f"{where}: ef is {list(params.ef)}; expected {layers} values, one per layer that is walked")


def _check_shapes(where: str, manifest: Mapping[str, Any]) -> None:
    try:
        ShapeGrid.of_manifest(manifest)
    except ConfigError as error:
        raise BundleError(f"{where}: shape_grid: {error}") from error


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
