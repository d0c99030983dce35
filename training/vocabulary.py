"""What the rows of a model's tables stand for, and where a later data set's are in an earlier one's."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from nann.item_ids import Ids

from .data.item_attributes import NUMBER, code_count
from .data.prepared import PreparedData

Rows = npt.NDArray[np.int64]
"""`int64[n]`: for each of n things the row of the same thing before; -1 if it is new."""
Field = Mapping[str, Any]


@dataclass(frozen=True)
class Vocabulary:
    """Of N items.

    Attributes:
        item_ids: `int64[N]`, or `S[N]` of text ids, ascending.
        categories: the labels, by code.
        attributes: the fields of the items' attributes, as in `ItemAttributes`; none without.
        profiles: the user profile fields, as in `PreparedData`.
    """

    item_ids: Ids
    categories: tuple[str, ...]
    attributes: tuple[Field, ...]
    profiles: tuple[Field, ...]

    @classmethod
    def of(cls, data: PreparedData) -> Vocabulary:
        """That of a data set."""
        attributes = () if data.item_attributes is None else data.item_attributes.fields
        return cls(data.item_ids, data.category_labels, attributes, data.profile_fields)

    def packed(self) -> dict[str, Any]:
        """For a checkpoint: tensors and text only, so that nothing has to be unpickled."""
        ids = self.item_ids if self.item_ids.dtype.kind == "i" else _bytes(self.item_ids)
        words = {"categories": self.categories, "attributes": self.attributes, "profiles": self.profiles}
        return {"item_ids": torch.from_numpy(ids.copy()), "words": json.dumps(words)}

    @classmethod
    def unpacked(cls, body: Mapping[str, Any]) -> Vocabulary:
        """What `packed` gave."""
        ids = body["item_ids"].numpy()
        words = {name: tuple(values) for name, values in json.loads(body["words"]).items()}
        return cls(ids if ids.ndim == 1 else ids.view(f"S{ids.shape[1]}").ravel(), **words)

    def item_rows(self, before: Vocabulary) -> Rows:
        """Of the items; both have ids of one kind."""
        place = np.minimum(np.searchsorted(before.item_ids, self.item_ids), len(before.item_ids) - 1)
        return np.where(before.item_ids[place] == self.item_ids, place, -1)

    def category_rows(self, before: Vocabulary) -> Rows:
        """Of the categories."""
        return _places(self.categories, before.categories)

    def attribute_rows(self, before: Vocabulary) -> Rows:
        """Of the codes of attributes."""
        return _field_rows(self.attributes, before.attributes, code_count)

    def profile_rows(self, before: Vocabulary) -> Rows:
        """Of the codes of profile fields, one range after another."""
        return _field_rows(self.profiles, before.profiles, lambda field: len(field["values"]) + 1)


def _bytes(ids: Ids) -> npt.NDArray[np.uint8]:
    """S[N] as uint8[N, width]."""
    return np.ascontiguousarray(ids).view(np.uint8).reshape(len(ids), -1)


def _places(values: Sequence[Any], before: Sequence[Any]) -> Rows:
    place = {value: row for row, value in enumerate(before)}
    return np.array([place.get(value, -1) for value in values], np.int64)


def _field_rows(fields: Sequence[Field], before: Sequence[Field], size: Callable[[Field], int]) -> Rows:
    """Of codes: fields are the same if their names are; the first code of a field is unknown."""
    fields_before, first = {}, 0
    for field in before:
        fields_before[field["name"]] = first, field
        first += size(field)
    parts = [np.empty(0, np.int64)]
    for field in fields:
        rows = np.full(size(field), -1, np.int64)
        first, old = fields_before.get(field["name"], (0, None))
        if old is not None and (old["kind"] == NUMBER) == (field["kind"] == NUMBER):
            inside = np.append(0, 1 + _values_in(field, old))[: len(rows)]
            known = (inside > 0) & (inside < size(old))
            known[0] = True
            rows = np.where(known, first + inside, -1)
        parts.append(rows)
    return np.concatenate(parts)


def _values_in(field: Field, old: Field) -> Rows:
    """The place of each value of a field among the old one's; of a number's bin the old bin that it begins in."""
    if field["kind"] != NUMBER:
        return _places(field["values"], old["values"])
    begins = np.searchsorted(np.array(old["edges"], float), np.array(field["edges"], float), side="right")
    return np.append(0, begins).astype(np.int64)
