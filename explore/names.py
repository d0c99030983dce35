"""Search as you type over the items' names."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Sequence
from itertools import chain

import numpy as np
import numpy.typing as npt

Int32Array = npt.NDArray[np.int32]

_WORD = re.compile(r"\w+")
_RANKED = 2_000
"""The most matches that are put in order."""


class NameIndex:
    """The names of N items by the beginnings of their words.

    The words are kept in order, each with the items that have it. So all words with one beginning are neighbours, and
    their items are one slice.

    Args:
        names: one for each item.
    """

    def __init__(self, names: Sequence[str]) -> None:
        items_of: dict[str, list[int]] = defaultdict(list)
        for item, name in enumerate(names):
            for word in set(words_of(name)):
                items_of[word].append(item)
        self._names = names
        self._words = sorted(items_of)
        counts = [len(items_of[word]) for word in self._words]
        self._indptr = np.append(0, np.cumsum(counts, dtype=np.int64))  # [words + 1]
        listed = chain.from_iterable(items_of[word] for word in self._words)
        self._items: Int32Array = np.fromiter(listed, np.int32, int(self._indptr[-1]))

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
        return self._items[self._indptr[first] : self._indptr[last]]


def words_of(text: str) -> list[str]:
    """The words of a name in lower case."""
    return _WORD.findall(text.lower())


def _rank(wanted: Sequence[str], name: str) -> tuple[int, bool, int]:
    words = words_of(name)
    return -len(set(wanted).intersection(words)), not words[0].startswith(wanted[0]), len(name)
