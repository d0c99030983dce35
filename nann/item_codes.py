"""What describes an item, as the codes that the model was trained with: the inputs of a bundle's item encoder."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, NamedTuple

import numpy as np

from nann.errors import RequestError
from nann.scorer import Int32Array
from nann.signature import PADDING_ITEM

NUMBER = "number"
_SHOWN = 20


class CodedItems(NamedTuple):
    """Items as codes.

    Attributes:
        codes: `int32[M, W]`, the codes of each item, padded with -1; W is at least 1.
        unknown_values: how many of the values have no code, because training did not see them.
    """

    codes: Int32Array
    unknown_values: int


@dataclass(frozen=True)
class ItemField:
    """One attribute, and its codes.

    Attributes:
        name: as items have it.
        values: code by value, of a category; None for a number.
        edges: of a number's bins, ascending: the bin from `edges[i - 1]` to below `edges[i]` has code `first + i`.
        first: the first bin's code.
        unknown: the code of an item without a value that has a code; None: such an item has no code of this field.
        left_out: values that training left out, since they tell items hardly apart.
    """

    name: str
    values: Mapping[str, int] | None
    edges: tuple[float, ...]
    first: int
    unknown: int | None
    left_out: frozenset[str]

    @classmethod
    def of(cls, body: Mapping[str, Any]) -> ItemField:
        """From the file `ITEM_FIELDS_FILE` of a bundle."""
        first = int(body["first_value_code"])
        values = None if body["kind"] == NUMBER else {value: first + i for i, value in enumerate(body["values"])}
        left_out = frozenset(body.get("left_out", ()))
        return cls(body["name"], values, tuple(body.get("edges", ())), first, body["unknown_code"], left_out)


@dataclass(frozen=True)
class ItemCodes:
    """Turns items, given by their attributes, into codes.

    Attributes:
        fields: the attributes that the model knows.
        others: names of attributes that items may have and the model does not read.
        separator: between several values in one text; empty: a text is one value.
    """

    fields: tuple[ItemField, ...]
    others: frozenset[str]
    separator: str

    @classmethod
    def of(cls, body: Mapping[str, Any], others: Collection[str] = ()) -> ItemCodes:
        """From the file `ITEM_FIELDS_FILE` of a bundle, and the names of all attributes that its items have."""
        fields = tuple(map(ItemField.of, body["fields"]))
        return cls(fields, frozenset(others) - {field.name for field in fields}, body["separator"])

    def encode(self, items: Sequence[Mapping[str, Any]]) -> CodedItems:
        """The codes of some items.

        Args:
            items: value by attribute, of each item: a text, a whole number, true or false, or a list of these for a
                category, and a number for a number. What is left out or None is unknown.

        Raises:
            RequestError: naming the item's place, the attribute and the value, if there is no such attribute or the
                value is of another type.
        """
        rows, unknown_values = [], 0
        for place, item in enumerate(items):
            codes: list[int] = []
            try:
                self._check_names(item)
                for field in self.fields:
                    found, unknown = self._codes(field, item.get(field.name))
                    codes += found
                    unknown_values += unknown
            except RequestError as error:
                raise RequestError(f"item {place + 1} of {len(items)}: {error}") from None
            rows.append(codes)
        coded = np.full((len(rows), max(map(len, rows), default=0) or 1), PADDING_ITEM, np.int32)
        for row, codes in zip(coded, rows, strict=True):
            row[: len(codes)] = codes
        return CodedItems(coded, unknown_values)

    def _check_names(self, item: Mapping[str, Any]) -> None:
        if not isinstance(item, Mapping):
            raise RequestError(f"it is {item!r}; expected values by attribute")
        known = {field.name for field in self.fields} | self.others
        if unknown := [name for name in item if name not in known]:
            names = sorted(known)
            more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
            raise RequestError(
                f"it has an attribute {unknown[0]!r}; expected some of {', '.join(names[:_SHOWN])}{more}"
            )

    def _codes(self, field: ItemField, value: Any) -> tuple[list[int], int]:
        """The codes of a value, and how many parts of it have none."""
        codes: list[int] = []
        unknown = 0
        if field.values is None:
            codes = [] if value is None else [field.first + bisect_right(field.edges, _number(field.name, value))]
        else:
            texts = self._texts(field.name, value)
            codes = [field.values[text] for text in texts if text in field.values]
            unknown = sum(text not in field.values and text not in field.left_out for text in texts)
        if not codes and field.unknown is not None:
            codes = [field.unknown]
        return codes, unknown

    def _texts(self, name: str, value: Any) -> list[str]:
        """The values of a category, each once and none empty, as the reader of a table of items sees them."""
        if value is None:
            return []
        several = isinstance(value, (list, tuple))
        parts = value if several else [value]
        if isinstance(value, str) and self.separator:
            parts = value.split(self.separator)
        texts = (_text(name, part, value) for part in parts if part is not None)
        return list(dict.fromkeys(text for text in texts if text))


def _text(name: str, part: Any, value: Any) -> str:
    if isinstance(part, (bool, np.bool_)):
        return "true" if part else "false"
    if isinstance(part, str):
        return part.strip()
    if isinstance(part, Integral):
        return str(int(part))
    if isinstance(part, Real) and float(part).is_integer():  # a table with empty places makes whole numbers floats
        return str(int(float(part)))
    raise RequestError(f"its {name!r} is {value!r}; expected a text, a whole number, true or false, or a list of these")


def _number(name: str, value: Any) -> float:
    if isinstance(value, Real) and not isinstance(value, (bool, np.bool_)) and math.isfinite(float(value)):
        return float(value)
    raise RequestError(f"its {name!r} is {value!r}; expected a finite number, or nothing where it is unknown")
