"""What a record of the journal holds: items that were set, and items that were deleted.

    uint32 length of the JSON text; the text; zeros up to a multiple of 4 bytes; float32 [V, R] rows, [V, d'] light,
    [V, d] vectors

The JSON has `format`, `time` (seconds since 1970), `deleted` (ids), `upserted` (id and attributes of each), and, where
some came with vectors, `vectors` (which of the upserted these are), `widths` (R, d', d) and the `model` that they are
for.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from nann.errors import JournalError

from .journal_format import Record

Id = int | str
"""An external item id, as JSON has it."""
Attributes = Mapping[str, Any]
"""Values by attribute: text, number, true or false, a list of texts; None takes the value away."""
Float32Array = npt.NDArray[np.float32]

_FORMAT = 1
_LENGTH = struct.Struct("<I")


@dataclass(frozen=True, eq=False)
class Upsert:
    """An item that is to be there from now on.

    Attributes:
        id: of the item.
        attributes: those that change; others stay as they are, and a new item has none.
        row: `float32[R]`, what the scorer needs of it; None: it stays where it is.
        light: `float32[d']`, its vector for the light score, where the bundle has one and `row` came.
        vector: `float32[d]`, e_v, which gives it its place in the next graph (`nann refresh`); all items of one batch
            that come with a row have it, or none.
    """

    id: Id
    attributes: Attributes
    row: Float32Array | None = None
    light: Float32Array | None = None
    vector: Float32Array | None = None


@dataclass(frozen=True, eq=False)
class Changes:
    """One batch. No id is in it twice.

    Attributes:
        time_s: when it came, in seconds since 1970.
        upserted: items that are to be there.
        deleted: ids of items that are not.
        model: `model_of` the bundle that the rows and light vectors are made for; "": none came.
    """

    time_s: float
    upserted: Sequence[Upsert] = ()
    deleted: Sequence[Id] = ()
    model: str = ""

    def pack(self) -> bytes:
        """Its bytes."""
        placed = [place for place, each in enumerate(self.upserted) if each.row is not None]
        parts = [
            _stacked([getattr(self.upserted[place], name) for place in placed]) for name in ("row", "light", "vector")
        ]
        body: dict[str, Any] = {
            "format": _FORMAT,
            "time": self.time_s,
            "deleted": list(self.deleted),
            "upserted": [[each.id, each.attributes] for each in self.upserted],
        }
        if placed:
            body |= {"vectors": placed, "widths": [part.shape[1] for part in parts], "model": self.model}
        text = json.dumps(body, separators=(",", ":"), allow_nan=False).encode()
        padding = bytes(-(_LENGTH.size + len(text)) % 4)
        return b"".join((_LENGTH.pack(len(text)), text, padding, *(part.tobytes() for part in parts)))

    @classmethod
    def unpack(cls, payload: bytes) -> Changes:
        """Reads `pack`'s bytes.

        Raises:
            JournalError: if a later release wrote them.
        """
        (length,) = _LENGTH.unpack_from(payload)
        body = json.loads(payload[_LENGTH.size : _LENGTH.size + length])
        if body["format"] != _FORMAT:
            raise JournalError(
                f"a record of the journal has format {body['format']}; this release reads {_FORMAT}: use a later one"
            )
        upserted = [Upsert(*each) for each in body["upserted"]]
        placed, widths = body.get("vectors", ()), body.get("widths", ())
        start = -(-(_LENGTH.size + length) // 4) * 4
        numbers = np.frombuffer(payload, "<f4", offset=start)
        parts = np.split(numbers, np.cumsum([len(placed) * width for width in widths])[:-1]) if placed else []
        each = [
            part.reshape(len(placed), width) if width else [None] * len(placed)
            for part, width in zip(parts, widths, strict=True)
        ]
        for place, row, light, vector in zip(placed, *each, strict=True):
            upserted[place] = replace(upserted[place], row=row, light=light, vector=vector)
        return cls(body["time"], upserted, body["deleted"], body.get("model", ""))


def model_of(manifest: Mapping[str, Any]) -> str:
    """A name for the models of a bundle: rows and light vectors of items are of use to these alone."""
    hashes = [entry["sha256"] for name, entry in sorted(manifest["files"].items()) if name.endswith(".onnx")]
    return hashlib.sha256("".join(hashes).encode()).hexdigest()[:16]


def compacted(records: Sequence[Record], after: int) -> list[Record]:
    """The records without what later ones made of no account, and without those up to sequence number `after`.

    Whoever has applied some of `records` and goes on with the rest of the result has the same items in the end.
    """
    kept: list[Record] = []
    later = _Later()
    for record in reversed([record for record in records if record.sequence > after]):
        changes = later.without_superseded(Changes.unpack(record.payload))
        if changes.upserted or changes.deleted:
            kept.append(Record(record.sequence, changes.pack()))
    return kept[::-1]


class _Later:
    """What later records set."""

    def __init__(self) -> None:
        self._gone: set[Id] = set()
        self._vectors: set[tuple[Id, str]] = set()
        self._attributes: dict[Id, set[str]] = {}

    def without_superseded(self, changes: Changes) -> Changes:
        upserted = [each for one in changes.upserted if (each := self._rest(one, changes.model)) is not None]
        deleted = [each for each in changes.deleted if each not in self._gone]
        self._gone.update(deleted)
        return replace(changes, upserted=upserted, deleted=deleted)

    def _rest(self, item: Upsert, model: str) -> Upsert | None:
        if item.id in self._gone:
            return None
        known = self._attributes.get(item.id)
        named = self._attributes.setdefault(item.id, set())
        attributes = {name: value for name, value in item.attributes.items() if name not in named}
        named.update(attributes)
        row, light, vector = item.row, item.light, item.vector
        if row is not None:
            if (item.id, model) in self._vectors:
                row = light = vector = None
            self._vectors.add((item.id, model))
        if known is not None and not attributes and row is None:  # a later one says that it is there
            return None
        return Upsert(item.id, attributes, row, light, vector)


def _stacked(rows: Sequence[Float32Array | None]) -> Float32Array:
    """`float32[V, width]`, of width 0 where there are none."""
    known = [row for row in rows if row is not None]
    return np.stack(known).astype("<f4") if known else np.zeros((len(rows), 0), np.float32)
