"""The fuzz targets. Each takes bytes and must end in an answer or in an exception of `nann.errors`.

`test_fuzz.py` feeds them from hypothesis in `make test`, `coverage_guided.py` from atheris in `make fuzz`.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import numpy as np

from nann import item_sets
from nann.bundle import (
    ITEM_IDS_FILE,
    ITEM_NAMES_FILE,
    ITEM_VECTORS_FILE,
    LIGHT_VECTORS_FILE,
    MANIFEST_FILE,
    Bundle,
    write_manifest,
)
from nann.errors import FilterError, NannError
from nann.features import FeatureTransform
from nann.filters import ServedFilters, parse
from nann.graph import HnswGraph, Layer, load_array
from nann.item_ids import TEXT, why_no_text_id
from nann.manifest import sha256_of
from nann.python_backend.search.outcomes import Kind
from nann.python_backend.search.retriever import Retriever, Search
from nann.search_requests import SearchBounds, TimeLimit
from nann.signature import STATUS_COMPLETE, STATUS_PARTIAL
from nann.training.data.item_columns import catalogue_of

ITEMS, DIM, SEQUENCE_LENGTH = 40, 3, 4
ATTRIBUTES = {
    "price": [None if item == 3 else item / 4 for item in range(ITEMS)],
    "year": [1990 + item % 7 for item in range(ITEMS)],
    "tags": [[f"t{item % 3}", "all"] for item in range(ITEMS)],
    "available": [item % 2 == 0 for item in range(ITEMS)],
}
FILTERS = {"cheap": "price < 3", "old": 'year <= 1992 and not tags = "t1" or available'}
BOUNDS = SearchBounds(max_top_k=50, max_ef=60, max_rounds=5)
LIMIT = TimeLimit(60_000)


def make_bundle(folder: Path) -> Bundle:
    """A bundle with two layers: a ring of all items, and above it a ring of every fourth item."""
    generator = np.random.default_rng(0)
    vectors = generator.normal(size=(ITEMS, DIM)).astype(np.float32)
    np.save(folder / ITEM_IDS_FILE, np.arange(ITEMS, dtype=np.int64) * 2 + 10)
    for name in (ITEM_VECTORS_FILE, LIGHT_VECTORS_FILE):
        np.save(folder / name, vectors)
    (folder / ITEM_NAMES_FILE).write_text("name\n" * ITEMS)
    layers = []
    for step in (1, 4):
        on = np.arange(0, ITEMS, step)
        neighbors = np.stack([(on - step) % ITEMS, (on + step) % ITEMS], axis=1).astype(np.int32).ravel()
        degrees = np.where(np.arange(ITEMS) % step == 0, 2, 0)
        layers.append(Layer(np.concatenate([[0], degrees.cumsum()]).astype(np.int32), neighbors))
    levels = (np.arange(ITEMS) % 4 == 0).astype(np.uint8)
    files = HnswGraph(tuple(layers), levels, 1, 0).save(folder)
    attributes, of_attributes = catalogue_of(ATTRIBUTES, ITEMS).save(folder)
    manifest = {
        "item_count": ITEMS,
        "sequence_length": SEQUENCE_LENGTH,
        "profile_fields": [{"name": "age", "values": ["9", "10"]}],
        "graph": {"layer_count": 2, "entry_layer": 1, "hnsw_entry_point": 0},
        "export": {"user_state_width": DIM},
        "attributes": attributes,
        "filters": FILTERS,
        "search": {"top_k": 5, "ef": [10, 20], "rounds": [1, 2]},
        "search_by_entry": {"seeds": {"top_k": 5, "ef": [20], "rounds": [2], "seeds": {"count": 5, "ef": 10}}},
    }
    arrays = [ITEM_IDS_FILE, ITEM_VECTORS_FILE, LIGHT_VECTORS_FILE, ITEM_NAMES_FILE]
    return write_manifest(folder, manifest, [*arrays, *files, *of_attributes])


class DotScorer:
    """Scores by inner product."""

    def __init__(self, vectors: np.ndarray) -> None:
        self._vectors = vectors

    def score(self, user_states: np.ndarray, candidates: np.ndarray) -> np.ndarray:
        return np.einsum("bd,bcd->bc", user_states, self._vectors[candidates])


@cache
def whole() -> Bundle:
    """The intact bundle."""
    return make_bundle(Path(tempfile.mkdtemp(prefix="nann-fuzz-")))


@cache
def retriever() -> Retriever:
    """A retriever of the intact bundle."""
    return Retriever(whole(), BOUNDS, LIMIT)


@contextlib.contextmanager
def copy_of_bundle() -> Iterator[Path]:
    """A copy of the bundle, to be damaged."""
    with tempfile.TemporaryDirectory(prefix="nann-fuzz-") as folder:
        yield Path(shutil.copytree(whole().path, folder, dirs_exist_ok=True))


def use(folder: Path) -> None:
    """Opens every part of a bundle and searches in it."""
    bundle = Bundle.open(folder)
    _ = bundle.notes
    assert bundle.item_names is None or len(bundle.item_names) == bundle.item_count
    for name in bundle.filters:
        with contextlib.suppress(FilterError):  # one that does not fit the attributes is told when it is used
            members = item_sets.members(ServedFilters.of_bundle(bundle).allowed(name))
            assert members.max(initial=0) < ITEMS
    states = np.ones((2, DIM), np.float32)
    behaviors, _ = bundle.features.behaviors(np.array([[10, 12], [14, 5]]))
    opened = Retriever(bundle, BOUNDS, LIMIT)
    for entry in bundle.search_by_entry:
        search = opened.parse(states, behaviors, json.dumps({"entry": entry}))
        (outcome,) = opened.answer(DotScorer(whole().item_vectors), [search])
        assert outcome.kind is Kind.COMPLETE, outcome.error


def filter_text(data: bytes) -> None:
    """A filter of any content: read, compiled, and the same again from its normal form."""
    with contextlib.suppress(FilterError):
        text = data.decode("utf-8", "replace")
        predicate = parse(text)
        assert str(parse(str(predicate))) == str(predicate)
        catalogue = whole().attributes
        assert catalogue is not None
        matching = catalogue.compile(text)
        assert item_sets.count(matching) + item_sets.count(catalogue.compile(~predicate)) == ITEMS


def parameters(data: bytes) -> None:
    """A request's parameters as text; if they are accepted, a search must keep to them."""
    with contextlib.suppress(NannError):
        states = np.ones((1, DIM), np.float32)
        search = retriever().parse(states, np.zeros((1, 2), np.int32), data.decode("utf-8", "replace"))
        _check_answer(search)


def tensors(data: bytes) -> None:
    """User states and behaviours of any shape and content."""
    head, body = (data + bytes(8))[:8], data[8:] + bytes(64)
    states = _shaped(np.frombuffer(body[: len(body) // 4 * 4], np.float32), head[:3])
    behaviors = _shaped(np.frombuffer(body[: len(body) // 4 * 4], np.int32), head[3:6])
    with contextlib.suppress(NannError), np.errstate(all="ignore"):
        search = retriever().parse(states, behaviors, "")
        if states.shape[1] == DIM:
            _check_answer(search)


def features(data: bytes) -> None:
    """Item ids and user profile codes, of any shape and value."""
    head, body = (data + bytes(8))[:8], data[8:] + bytes(64)
    ids = _shaped(np.frombuffer(body[: len(body) // 8 * 8], np.int64), head[:3])
    transform: FeatureTransform = whole().features
    with contextlib.suppress(NannError):
        behaviors, unknown = transform.behaviors(ids)
        assert behaviors.shape == (len(ids), SEQUENCE_LENGTH)
        assert behaviors.min(initial=0) >= -1
        assert behaviors.max(initial=0) < ITEMS
        for row, count, original in zip(behaviors, unknown[:, 0], ids, strict=True):
            known = [int(item) for item in original if item in transform.item_ids]
            assert transform.item_ids[row[row >= 0]].tolist() == known[-SEQUENCE_LENGTH:]
            assert count == sum(item not in (0, -1) and item not in transform.item_ids for item in original)
        transform.profile(ids, len(ids))


def texts(data: bytes) -> None:
    """Item ids that are any bytes, looked up among others."""
    asked, known = (part.split(b"\n") for part in (data + b"\r").split(b"\r", 1))
    items = sorted({one for one in known if why_no_text_id(one) is None})
    if not items:
        return
    ids = np.empty((1, len(asked)), object)
    ids[0] = asked
    behaviors, unknown = FeatureTransform(TEXT.stored(items), SEQUENCE_LENGTH).behaviors(ids)
    found = [items.index(one) for one in asked if one in items]
    assert behaviors[behaviors >= 0].tolist() == found[-SEQUENCE_LENGTH:]
    assert unknown.item() == sum(one != b"" and one not in items for one in asked)


def manifest(data: bytes) -> None:
    """`manifest.json` of any content, the other files intact."""
    with copy_of_bundle() as folder:
        (folder / MANIFEST_FILE).write_bytes(data)
        with contextlib.suppress(NannError):
            use(folder)


def array(data: bytes) -> None:
    """An array file of any content."""
    with tempfile.NamedTemporaryFile(suffix=".npy") as file:
        file.write(data)
        file.flush()
        for dtype, ndim in ((np.int32, 1), (np.float32, 2)):
            with contextlib.suppress(NannError):
                load_array(Path(file.name), dtype, ndim).sum()


def bundle_file(data: bytes) -> None:
    """One file of the bundle, shortened and with changed bytes, but with its new hash, so that verification passes."""
    names = sorted(whole().manifest["files"])
    choice, cut, *edits = (data + bytes(2))[:40]
    with copy_of_bundle() as folder:
        path = folder / names[choice % len(names)]
        content = bytearray(path.read_bytes())
        for place, value in zip(edits[::2], edits[1::2], strict=False):
            content[(place * len(content)) // 256] = value
        path.write_bytes(bytes(content[: len(content) - cut % 64]))
        body = json.loads((folder / MANIFEST_FILE).read_text())
        body["files"][path.name] = {"sha256": sha256_of(path), "bytes": path.stat().st_size}
        (folder / MANIFEST_FILE).write_text(json.dumps(body))
        with contextlib.suppress(NannError), np.errstate(all="ignore"):
            use(folder)


TARGETS: dict[str, Callable[[bytes], None]] = {
    target.__name__: target
    for target in (parameters, tensors, features, texts, filter_text, manifest, array, bundle_file)
}


def _shaped(values: np.ndarray, head: bytes) -> np.ndarray:
    """The values in a shape of up to three dimensions, each 0 to 6."""
    shape = tuple(byte % 7 for byte in head[: 1 + head[0] % 3])
    return np.resize(values, shape)


def _check_answer(search: Search) -> None:
    (outcome,) = retriever().answer(DotScorer(whole().item_vectors), [search])
    if outcome.error is not None:
        raise outcome.error  # from nann.errors, which every target allows
    ids, scores, scored, matching, status, _key = outcome.outputs.values()
    assert np.isin(status, [STATUS_COMPLETE, STATUS_PARTIAL]).all()
    assert ids.shape == scores.shape == (len(search.users), search.params.top_k)
    assert search.params.top_k <= BOUNDS.max_top_k
    assert max(search.params.ef) <= BOUNDS.max_ef
    assert np.isin(ids, [-1, *whole().item_ids]).all()
    assert (scored <= 2 * ITEMS).all()
    assert ((ids != -1).sum(axis=1) <= matching[:, 0]).all()
