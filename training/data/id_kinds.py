"""Whether a log's users and items are numbers or text: one value that is no plain number makes all of them text."""

from __future__ import annotations

from collections.abc import Collection

import polars as pl

from .columns import plain_number

NUMBERS, TEXT = "numbers", "text"
_FEW = 0.1
"""Fewer rows than such a share make text of ids that were perhaps meant to be numbers."""


class IdKinds:
    """Looks at the good rows of a log as they are read.

    Users are Int64 if all are whole numbers. Items are if all are from 1 to 2^63 - 1, too. `texts`: those of "user" and
    "item" that are text in any case.
    """

    def __init__(self, *, texts: Collection[str] = ()) -> None:
        self._told = frozenset(texts)
        self._why = dict.fromkeys(texts, "as asked for, or as in the data set")
        self._rows = self._strays = 0

    def see(self, rows: pl.DataFrame, source: str) -> None:
        """Takes good rows with their `number`; `source` names the file in messages."""
        for key in ("user", "item"):
            if key in self._told or (key in self._why and (key == "user" or not self._few)):
                continue
            is_text = rows.schema[key] == pl.String
            number = plain_number(pl.col(key)) if is_text else pl.col(key)
            plain = number.is_not_null() if key == "user" else (number > 0).fill_null(False)
            strays = rows.filter(~plain)
            if key == "item":
                self._rows, self._strays = self._rows + rows.height, self._strays + strays.height
            if strays.height and key not in self._why:
                expected = "is no plain whole number" + (" from 1 to 2^63 - 1" if key == "item" else "")
                self._why[key] = f"{str(strays[key][0])!r} ({source}:{strays['number'][0]}) {expected}"

    @property
    def _few(self) -> bool:
        """Whether few of the rows that were looked at make the items' ids text."""
        return self._strays < _FEW * self._rows

    def remarks(self) -> list[str]:
        """A line if a few rows alone make text of the items' ids, which changes what a server and its clients speak."""
        if "item" in self._told or "item" not in self._why or not self._few:
            return []
        return [
            f"item ids are text because of {self._strays:,} of {self._rows:,} rows, the first: {self._why['item']}; "
            "--item-ids number makes such rows bad ones, --item-ids text says that all ids are text"
        ]

    def applied(self, rows: pl.LazyFrame) -> pl.LazyFrame:
        """The rows with `user` and `item` as Int64 or String."""
        kinds = {key: pl.String if key in self._why else pl.Int64 for key in ("user", "item")}
        return rows.with_columns(pl.col(key).cast(kind) for key, kind in kinds.items())

    def described(self) -> dict[str, str]:
        """What was found, in words: for items and users."""
        return {f"{key} ids": f"{TEXT}: {self._why[key]}" if key in self._why else NUMBERS for key in ("item", "user")}
