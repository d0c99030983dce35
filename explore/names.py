"""Search as you type over the items' names."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

Int32Array = npt.NDArray[np.int32]

_WORD = re.compile(r"\w+")
_TOKEN = re.compile(r"\w+|\n")
_AT_ONCE = 10_000
_RANKED = 1_000
"""The most matches that are put in order."""


class NameIndex:
    """The names of N items by the beginnings of their words.

    The words are kept in order, each with the items that have it. So all words with one beginning are neighbours, and
    their items are one slice.

    Args:
        names: one for each item.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names
        number_of: dict[str, int] = {}
        numbers = np.fromiter((number_of.setdefault(token, len(number_of)) for token in _tokens(names)), np.int64)
        is_end = numbers == number_of.pop("\n", -1)
        items = np.cumsum(is_end)[~is_end]
        self._words = sorted(number_of)
        place = np.zeros(len(number_of) + 1, np.int64)
        place[[number_of[word] for word in self._words]] = np.arange(len(self._words))
        pairs = np.unique(place[numbers[~is_end]] * len(names) + items)  # by word, and then by item
        self._indptr = np.searchsorted(pairs, np.arange(len(self._words) + 1) * len(names))
        self._items = (pairs % max(len(names), 1)).astype(np.int32)

    def search(self, text: str, limit: int) -> list[int]:
        """Items whose names have a word beginning with each word of `text`.

        Whole words come before beginnings, names that begin with the text before others, short names before long ones.

        Args:
            text: as typed.
            limit: the most items to return.
        """
        wanted = words_of(text)
        if not wanted:
            return []
        matching = np.ones(len(self._names), np.bool_)
        for word in wanted:
            has = np.zeros(len(self._names), np.bool_)
            has[self._with_beginning(word)] = True
            matching &= has
        found = np.flatnonzero(matching)[:_RANKED].tolist()
        return sorted(found, key=lambda item: _rank(wanted, self._names[item]))[:limit]

    def _with_beginning(self, word: str) -> Int32Array:
        first = bisect_left(self._words, word)
        last = bisect_left(self._words, word + "\U0010ffff")
        found: Int32Array = self._items[self._indptr[first] : self._indptr[last]]
        return found


def _tokens(names: Sequence[str]) -> Iterator[str]:
    """The words of each name and a line break after it."""
    # Many names at once, as a call for each takes several times as long; not all, so that other threads get their turn.
    for first in range(0, len(names), _AT_ONCE):
        lines = (name.replace("\n", " ") + "\n" for name in names[first : first + _AT_ONCE])
        yield from _TOKEN.findall("".join(lines).lower())


def words_of(text: str) -> list[str]:
    """The words of a name in lower case."""
    return _WORD.findall(text.lower())


def _rank(wanted: Sequence[str], name: str) -> tuple[int, bool, int]:
    words = words_of(name)
    return -len(set(wanted).intersection(words)), not words[0].startswith(wanted[0]), len(name)
