"""Whether a log's users and items are numbers or text: one value that is no plain number makes all of them text."""

from __future__ import annotations

from collections.abc import Collection

import polars as pl

from .columns import plain_number

NUMBERS, TEXT = "numbers", "text"


class IdKinds:
    """Looks at the good rows of a log as they are read.

    Users are Int64 if all are whole numbers. Items are if all are from 1 to 2^63 - 1, too. `texts`: those of "user" and
    "item" that are text in any case.
    """

    def __init__(self, *, texts: Collection[str] = ()) -> None:
        self._why = dict.fromkeys(texts, "as asked for, or as in the data set")

    def see(self, rows: pl.DataFrame, source: str) -> None:
        """Takes good rows with their `number`; `source` names the file in messages."""
        for key in ("user", "item"):
            if key in self._why:
                continue
            is_text = rows.schema[key] == pl.String
            number = plain_number(pl.col(key)) if is_text else pl.col(key)
            plain = number.is_not_null() if key == "user" else (number > 0).fill_null(False)
            first = rows.filter(~plain).head(1)
            if first.height:
                expected = "is no plain whole number" + (" from 1 to 2^63 - 1" if key == "item" else "")
                self._why[key] = f"{str(first[key][0])!r} ({source}:{first['number'][0]}) {expected}"

    def applied(self, rows: pl.LazyFrame) -> pl.LazyFrame:
        """The rows with `user` and `item` as Int64 or String."""
        kinds = {key: pl.String if key in self._why else pl.Int64 for key in ("user", "item")}
        return rows.with_columns(pl.col(key).cast(kind) for key, kind in kinds.items())

    def described(self) -> dict[str, str]:
        """What was found, in words: for items and users."""
        return {f"{key} ids": f"{TEXT}: {self._why[key]}" if key in self._why else NUMBERS for key in ("item", "user")}
