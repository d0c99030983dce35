"""Items that are no answer for a user: the history, where the data set's protocol leaves it out of every list.

A search is asked for more items than needed, and those that are excluded are dropped here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from nann.search_params import SearchOptions, SearchParams
from nann.search_result import SearchResult
from nann.signature import PADDING_ITEM, PADDING_SCORE

from .data.prepared import Queries

_MOST_EXTRA = 4
"""A search asks for at most this many times top_k more. Users with more excluded items may get shorter lists."""


@dataclass(frozen=True, eq=False)
class Excluded:
    """The excluded items of U users as CSR: `indptr` is `int64[U + 1]`, `items` is `int32[E]`."""

    indptr: npt.NDArray[np.int64]
    items: npt.NDArray[np.int32]

    @classmethod
    def of(cls, queries: Queries) -> Excluded:
        """Those of some queries."""
        return cls(queries.excluded_indptr, queries.excluded_items)

    @classmethod
    def none(cls, users: int) -> Excluded:
        """Nothing is excluded for so many users."""
        return cls(np.zeros(users + 1, np.int64), np.zeros(0, np.int32))

    def __len__(self) -> int:
        return len(self.indptr) - 1

    def __getitem__(self, rows: slice) -> Excluded:
        first, end, _ = rows.indices(len(self))
        indptr = self.indptr[first : end + 1]
        return Excluded(indptr - indptr[0], self.items[indptr[0] : indptr[-1]])

    @property
    def most(self) -> int:
        """The largest number of excluded items of a user."""
        return int(np.diff(self.indptr).max(initial=0))

    def most_extra(self, top_k: int) -> int:
        """How many more items than top_k a search asks for at most."""
        return min(self.most, _MOST_EXTRA * top_k)

    def widened(self, params: SearchParams) -> list[SearchParams]:
        """Each user's search, which asks for more by the number of excluded items; the last ef grows if it must."""
        extra = np.minimum(np.diff(self.indptr), _MOST_EXTRA * params.top_k)
        return [params.asked(SearchOptions(top_k=params.top_k + more)) for more in extra.tolist()]

    def without(self, items: npt.NDArray[Any], top_k: int) -> npt.NDArray[Any]:
        """The first top_k of each user's items that are not excluded.

        Args:
            items: `int[U, M]`, best first, padded with -1.
            top_k: K.

        Returns:
            `int[U, min(M, K)]`, padded with -1.
        """
        return _taken(items, *self._kept(items, top_k), PADDING_ITEM)

    def without_in(self, found: SearchResult, top_k: int) -> SearchResult:
        """`without` for a search's items and scores; its costs stay as they are."""
        kept = self._kept(found.items, top_k)
        items, scores = _taken(found.items, *kept, PADDING_ITEM), _taken(found.scores, *kept, PADDING_SCORE)
        return replace(found, items=items, scores=scores)

    def _kept(self, items: npt.NDArray[Any], top_k: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.bool_]]:
        """Columns of the first top_k items that are kept, and which of them are padding because there are no more."""
        users = np.arange(len(self), dtype=np.int64)
        width = int(max(items.max(initial=0), self.items.max(initial=0))) + 2  # with room for the padding
        excluded = np.repeat(users, np.diff(self.indptr)) * width + self.items + 1
        gone = np.isin(users[:, None] * width + items + 1, excluded) | (items == PADDING_ITEM)
        places = np.argsort(gone, axis=1, kind="stable")[:, :top_k]
        return places, np.take_along_axis(gone, places, 1)


def _taken(
    values: npt.NDArray[Any], places: npt.NDArray[np.intp], gone: npt.NDArray[np.bool_], padding: float
) -> npt.NDArray[Any]:
    """The values at the places of each row, with padding where they are gone."""
    return np.where(gone, values.dtype.type(padding), np.take_along_axis(values, places, 1))
