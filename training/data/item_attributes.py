"""Attributes of the items, as codes: each field owns a range of codes, and its first code stands for unknown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl


@dataclass(frozen=True)
class ItemAttributes:
    """Codes of N items. Every item has at least one code of each field.

    Attributes:
        indptr: `int64[N + 1]`, item i's codes are at `indptr[i]:indptr[i + 1]`.
        codes: `int32[nnz]`, ascending and unique within an item, below `count`.
        fields: per field `name`, `kind`, `first_code`, and `values` or `edges`. The first code is unknown: nothing
            given, rare, or not seen when the data set was prepared. Kind "category" (one value) or "categories"
            (several): code `first_code + 1 + i` stands for `values[i]`. Kind "number": code `first_code + 1 + i` stands
            for the bin from `edges[i - 1]` to below `edges[i]`.
        count: the number of codes over all fields.
    """

    indptr: npt.NDArray[np.int64]
    codes: npt.NDArray[np.int32]
    fields: tuple[Mapping[str, Any], ...]
    count: int

    @classmethod
    def of(cls, lists: pl.Series, fields: Sequence[Mapping[str, Any]]) -> ItemAttributes:
        """From one list of codes per item, List(Int32), as `items.parquet` holds them."""
        indptr = np.append(0, lists.list.len().cast(pl.Int64).cum_sum().to_numpy())
        codes = np.ascontiguousarray(lists.explode().to_numpy(), np.int32)
        last = fields[-1]
        return cls(indptr, codes, tuple(fields), last["first_code"] + code_count(last))


def code_count(field: Mapping[str, Any]) -> int:
    """How many codes a field has, unknown included."""
    return 2 + len(field["edges"]) if field["kind"] == "number" else 1 + len(field["values"])
