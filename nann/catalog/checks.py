"""Checks a batch of changes before any of it is written: all of it is done, or nothing."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from nann.bundle import Bundle
from nann.errors import RequestError
from nann.item_ids import TEXT, IdKind
from nann.signature import ATTRIBUTES, CHANGED_ITEM_IDS, ITEM_LIGHT, ITEM_ROW, ITEM_VECTOR, PADDING_ITEM, TensorSpec

from .changes import Changes, Float32Array, Id, Upsert
from .live_corpus import LiveCorpus
from .values import checked

MAX_ITEMS = 10_000
"""The most items of one batch: searches wait while it is applied."""
_LARGEST = 1e10
"""The largest number of a vector: its cube, summed, is still finite in float32."""


def checked_ids(typed: Sequence[str], kind: IdKind) -> list[Id]:
    """The ids of one batch, as people type them, of a bundle's kind.

    Raises:
        RequestError: if there are none or too many, or one of them is of the other kind or there twice.
    """
    if not 0 < len(typed) <= MAX_ITEMS:
        raise RequestError(f"{CHANGED_ITEM_IDS.name} holds {len(typed):,} ids; expected 1 to {MAX_ITEMS:,}")
    known: dict[Id, None] = {}
    for text in typed:
        try:
            item_id = kind.item(text)
        except ValueError as error:
            raise RequestError(f"{CHANGED_ITEM_IDS.name}: {error}; expected ids of items") from error
        if item_id in known:
            raise RequestError(f"{CHANGED_ITEM_IDS.name} holds {item_id!r} twice; send each item once")
        known[item_id] = None
    return list(known)


def check_kind(changes: Changes, kind: IdKind) -> None:
    """Refuses changes that were made for a bundle with ids of the other kind.

    Raises:
        RequestError: naming one of the ids.
    """
    for item_id in (*changes.deleted, *(each.id for each in changes.upserted)):
        if not isinstance(item_id, str if kind is TEXT else int):
            raise RequestError(f"item {item_id!r} came; the ids of this bundle are {kind.words}")


def checked_upserts(
    corpus: LiveCorpus,
    ids: Sequence[Id],
    attributes: npt.NDArray[np.object_] | None,
    rows: Float32Array | None,
    light: Float32Array | None,
    vectors: Float32Array | None,
) -> list[Upsert]:
    """The items of one batch.

    Args:
        corpus: as it is now.
        ids: of M items, from `checked_ids`.
        attributes: `object[1, M]`, a JSON object for each; None: none change.
        rows: `float32[1, M, R]`; None: items stay where they are.
        light: `float32[1, M, d']`.
        vectors: `float32[1, M, d]`; None: `nann refresh` finds their places in the next graph.

    Raises:
        RequestError: naming the item and what is wrong with it.
    """
    texts = [b""] * len(ids) if attributes is None else _each(ATTRIBUTES, attributes, len(ids))
    changed = [_attributes(corpus.bundle, item_id, text) for item_id, text in zip(ids, texts, strict=True)]
    if rows is None:
        for spec, given in ((ITEM_LIGHT, light), (ITEM_VECTOR, vectors)):
            if given is not None:
                raise RequestError(f"{spec.name} came without {ITEM_ROW.name}; send both, or neither")
        _require_placed(corpus, ids)
        return [Upsert(*each) for each in zip(ids, changed, strict=True)]
    if not corpus.row_width:
        raise RequestError(
            f"{ITEM_ROW.name} came, and the scorer of this bundle has an item table among its weights; deploy a bundle "
            "of `nann export --item-rows`"
        )
    if corpus.light_width and light is None:
        raise RequestError(f"{ITEM_LIGHT.name} is missing; expected float32[1, {len(ids)}, {corpus.light_width}]")
    if light is not None and not corpus.light_width:
        raise RequestError(f"{ITEM_LIGHT.name} came, and this bundle's model has no light score; leave it out")
    parts = (
        _vectors(ITEM_ROW, rows, ids, corpus.row_width),
        _vectors(ITEM_LIGHT, light, ids, corpus.light_width),
        _vectors(ITEM_VECTOR, vectors, ids, corpus.vector_width),
    )
    return [Upsert(*each) for each in zip(ids, changed, *parts, strict=True)]


def _attributes(bundle: Bundle, item_id: Id, text: bytes | str) -> dict[str, Any]:
    """The attributes of one item, as they were sent."""
    if not text:
        return {}
    try:
        given = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RequestError(f"the attributes of item {item_id!r} are not JSON: {error}") from error
    if not isinstance(given, dict):
        raise RequestError(f"the attributes of item {item_id!r} are {str(text)[:60]}; expected a JSON object")
    columns = {} if bundle.attributes is None else bundle.attributes.columns
    for name, value in given.items():
        if name not in columns:
            known = ", ".join(columns) or "none: the bundle has none"
            raise RequestError(f"item {item_id!r} has an attribute {name!r}; expected some of {known}")
        try:
            checked(name, columns[name].type, value)
        except RequestError as error:
            raise RequestError(f"item {item_id!r}: {error}") from error
    return given


def _require_placed(corpus: LiveCorpus, ids: Sequence[Id]) -> None:
    known = (corpus.index_of(ids) != PADDING_ITEM) | (corpus.base_indices(ids) != PADDING_ITEM)
    if corpus.places_items or known.all():
        return
    first = ids[int(np.argmin(known))]
    why = f"{ITEM_ROW.name} float32[1, {len(ids)}, {corpus.row_width}]" if corpus.row_width else (
        "an item of the bundle: its scorer has an item table among its weights, so that it can't score others"
    )  # fmt: skip
    raise RequestError(f"item {first!r} is not in the corpus, and came without vectors; expected {why}")


def _each(spec: TensorSpec, array: npt.NDArray[Any], count: int) -> Sequence[Any]:
    if array.shape[:2] != (1, count):
        raise RequestError(f"{spec.name} has shape {list(array.shape)}; expected one for each of {count} items")
    found: Sequence[Any] = array[0]
    return found


def _vectors(
    spec: TensorSpec, vectors: Float32Array | None, ids: Sequence[Id], width: int
) -> Float32Array | Sequence[None]:
    if vectors is None:
        return [None] * len(ids)
    if vectors.shape != (1, len(ids), width):
        raise RequestError(f"{spec.name} has shape {list(vectors.shape)}; expected [1, {len(ids)}, {width}]")
    finite = np.isfinite(vectors[0]).all(axis=1)
    if not finite.all():
        raise RequestError(f"{spec.name} of item {ids[int(np.argmin(finite))]!r} holds NaN or infinity")
    moderate = (np.abs(vectors[0]) <= _LARGEST).all(axis=1)
    if not moderate.all():
        place = int(np.argmin(moderate))
        raise RequestError(
            f"{spec.name} of item {ids[place]!r} holds {vectors[0, place][np.abs(vectors[0, place]).argmax()]:g}; "
            f"expected numbers from {-_LARGEST:g} to {_LARGEST:g}: searches fail at an item whose score overflows"
        )
    found: Float32Array = vectors[0]
    return found
