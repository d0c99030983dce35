"""The values of a category: one line each in a text file, ascending, looked up in place."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import overload

import numpy as np
import numpy.typing as npt

from nann.errors import BundleError

_NEWLINE = ord("\n")
_CHECKED = 1 << 16
"""Lines that are looked at together."""


class Vocabulary(Sequence[bytes]):
    """V different texts as UTF-8, ascending by their bytes, which stay in the file."""

    def __init__(self, text: npt.NDArray[np.uint8]) -> None:
        # Views give bytes and ints several times as fast as arrays do.
        self._text = text.data
        self._ends = np.flatnonzero(text == _NEWLINE).astype(np.int64).data  # of each line

    @classmethod
    def of(cls, values: Sequence[str]) -> Vocabulary:
        """From different texts without line breaks, ascending."""
        return cls(np.frombuffer("".join(f"{value}\n" for value in values).encode(), np.uint8))

    @classmethod
    def load(cls, path: Path) -> Vocabulary:
        """Memory-maps a file.

        Raises:
            BundleError: if it can't be read, its last line does not end, or its lines do not ascend.
        """
        try:
            # An empty file can't be mapped.
            text = np.memmap(path, np.uint8, "r").view(np.ndarray) if path.stat().st_size else np.zeros(0, np.uint8)
        except OSError as error:
            raise BundleError(f"{path} can't be read: {error}; make the bundle again") from error
        vocabulary = cls(text)
        if len(text) and text[-1] != _NEWLINE:
            raise BundleError(f"{path} ends within a line; expected one value a line; make the bundle again")
        for first in range(0, len(vocabulary), _CHECKED):
            if any(line >= following for line, following in pairwise(vocabulary[first : first + _CHECKED + 1])):
                raise BundleError(f"{path} has lines that do not ascend; make the bundle again")
        return vocabulary

    def save(self, path: Path) -> None:
        """Writes the file."""
        path.write_bytes(self._text)

    def __len__(self) -> int:
        return len(self._ends)

    @overload
    def __getitem__(self, place: int) -> bytes: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[bytes]: ...
    def __getitem__(self, place: int | slice) -> bytes | Sequence[bytes]:
        if isinstance(place, slice):
            first, last, step = place.indices(len(self))
            return bytes(self._text[self._begin(first) : self._begin(last)]).split(b"\n")[:-1][::step]
        return bytes(self._text[self._begin(place) : self._ends[place]])

    def _begin(self, place: int) -> int:
        return self._ends[place - 1] + 1 if place else 0

    def find(self, value: str) -> int | None:
        """The place of a text, or None where it is none of these."""
        wanted = value.encode("utf-8", "surrogatepass")
        place = bisect_left(self, wanted)
        return place if place < len(self) and self[place] == wanted else None
