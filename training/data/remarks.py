"""What is said of a table's values that are not read as they are written: how many, and where the first one is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl

from nann.item_ids import shown

from .columns import TEXTS

_MOST = 0.9
"""A column of texts with at least such a share of numbers may be meant as one of numbers."""


_OTHER_FORM = (
    r"^[-+]?[0-9]{1,3}(?:[ '.]?[0-9]{3})*,[0-9]+$"
    r"|^[-+]?[0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]+)?$"
    r"|^[$€£¥]\s*[0-9][0-9 '.,]*$|^[0-9][0-9 '.,]*\s*[$€£¥]$"
)
"""Numbers with a decimal comma, with commas between the thousands, or with a currency."""


class Remarks:
    """Collects remarks on one table.

    Args:
        source: its name.
        lines: line or row of the file of each row, Int64.

    Attributes:
        said: the remarks, a line each.
    """

    def __init__(self, source: str, lines: pl.Series) -> None:
        self._source, self._lines = source, lines
        self.said: list[str] = []

    def without_key(self, raw: pl.Series, key: pl.Series, what: str) -> None:
        """On the rows whose `key` is null, though maybe not the value that it was read from."""
        if missing := key.null_count():
            first = self._first(raw, key.is_null())
            self.said.append(
                f"{missing:,} rows of {self._source} have no {what} in column {raw.name!r}, the first has {first}: "
                "left out"
            )

    def not_numbers(self, raw: pl.Series, numbers: pl.Series) -> None:
        """On the values of a column that are there and are no finite numbers."""
        wrong = _given(raw) & numbers.is_null()
        if count := int(wrong.sum()):
            self.said.append(
                f"{count:,} values of {self._column(raw)} are no numbers, the first is {self._first(raw, wrong)}: "
                "unknown"
            )

    def almost_numbers(self, raw: pl.Series, option: str) -> None:
        """On a column that is read as text, and of which most values are numbers, or would be in another form.

        `option` reads it as numbers.
        """
        if raw.dtype != pl.String:
            return
        given = _given(raw)
        wrong = given & finite_numbers(raw).is_null()
        count, all_given = int(wrong.sum()), int(given.sum())
        if all_given and not count and raw.str.contains(".", literal=True).any():
            self.said.append(
                f"{self._column(raw)} is text, though all its values are numbers; {option} {raw.name} reads it as "
                "numbers"
            )
        if 0 < count <= (1 - _MOST) * all_given:
            self.said.append(
                f"{self._column(raw)} is text, though {all_given - count:,} of its {all_given:,} values are numbers: "
                f"the first that is none is {self._first(raw, wrong)}; {option} {raw.name} reads it as numbers, and "
                "what is none as unknown"
            )
            return
        other = wrong & raw.str.strip_chars().str.contains(_OTHER_FORM).fill_null(False)
        if (alike := int(other.sum())) and all_given - count + alike >= _MOST * all_given:
            self.said.append(
                f"{self._column(raw)} is text, though its values look like numbers, such as {self._first(raw, other)}; "
                "only those written as 1234.5 are read as numbers"
            )

    def spaces_around(self, raw: pl.Series, value_separator: str = "") -> None:
        """On the texts of a column that have spaces around them."""
        several = isinstance(raw.dtype, (pl.List, pl.Array))
        texts = raw.cast(pl.List(raw.dtype.inner)).explode() if several else raw  # type: ignore[attr-defined]
        if texts.dtype not in TEXTS:
            return
        texts = texts.cast(pl.String)
        if value_separator and not several:
            texts = texts.str.split(value_separator).explode()
        stripped = texts.str.strip_chars()
        if count := int(((stripped != texts) & (stripped != "")).sum()):
            self.said.append(
                f"{count:,} values of {self._column(raw)} have spaces around them; the spaces were left out"
            )

    def _column(self, raw: pl.Series) -> str:
        return f"column {raw.name!r} of {self._source}"

    def _first(self, raw: pl.Series, where: pl.Series) -> str:
        row = where.arg_max() or 0
        value: Any = raw[row]
        return f"{'none' if value is None else shown(value)} ({Path(self._source).name}:{self._lines[row]})"


def finite_numbers(texts: pl.Series) -> pl.Series:
    """Texts as Float64, null where one is no finite number."""
    numbers = texts.str.strip_chars().cast(pl.Float64, strict=False)
    finite: pl.Series = numbers.set(~numbers.is_finite(), None)
    return finite


def _given(raw: pl.Series) -> pl.Series:
    given: pl.Series = raw.is_not_null()
    return given & (raw.str.strip_chars() != "").fill_null(False) if raw.dtype == pl.String else given
