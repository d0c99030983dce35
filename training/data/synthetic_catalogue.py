"""The items of a synthetic log: categories, neighbourhoods within them, popularity."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]


class Catalogue:
    """N items on a line. A place is a position on it; ids are shuffled, so that an id does not reveal the place.

    Attributes:
        item_ids: `int64[N]`, the external id (1..N) at each place.
        categories: `int64[N]`, the category at each place, from 1 and ascending.
        popularity: `float64[N + 1]`, cumulative popularity of the places.
        first_place: `int64[neighbourhoods + 1]`, where each neighbourhood begins.
    """

    def __init__(
        self,
        items: int,
        categories: int,
        category_skew: float,
        neighborhood_items: int,
        skew: float,
        head: float,
        rng: np.random.Generator,
    ) -> None:
        sizes = rng.permutation(_zipf_sizes(items, categories, category_skew))
        self.item_ids = rng.permutation(items).astype(np.int64) + 1
        self.categories = np.repeat(np.arange(1, categories + 1), sizes)
        rank = (rng.permutation(items) + 0.5) / items
        self.popularity = np.append(0.0, np.cumsum((rank + head) ** -skew))
        parts = -(-sizes // neighborhood_items)
        self._category = np.repeat(np.arange(categories), parts)  # of each neighbourhood
        self._last = np.cumsum(parts) - 1
        self._first = self._last - parts + 1
        within = np.arange(len(self._category)) - self._first[self._category]
        begin = (np.cumsum(sizes) - sizes)[self._category]
        # Even parts: the k-th of p begins at k/p of the category.
        self.first_place = np.append(begin + within * sizes[self._category] // parts[self._category], items)
        self._weight = self.popularity[self.first_place]

    @property
    def neighborhood_count(self) -> int:
        """The number of neighbourhoods."""
        return len(self.first_place) - 1

    def neighborhood_of(self, place: IntArray) -> IntArray:
        """The neighbourhood of each place."""
        return np.searchsorted(self.first_place, place, side="right") - 1

    def beside(self, neighborhood: IntArray, step: IntArray) -> IntArray:
        """The neighbourhood `step` further on the line, clipped to the category."""
        category = self._category[neighborhood]
        return np.clip(neighborhood + step, self._first[category], self._last[category])

    def popularity_range(self, neighborhood: IntArray) -> tuple[FloatArray, FloatArray]:
        """Begin and end of a neighbourhood in the cumulative popularity."""
        return self._weight[neighborhood], self._weight[neighborhood + 1]

    def neighborhood_at_popularity(self, value: FloatArray) -> IntArray:
        """The neighbourhood at a value of the cumulative popularity."""
        return np.minimum(np.searchsorted(self._weight, value, side="right") - 1, self.neighborhood_count - 1)

    def at_popularity(self, value: FloatArray) -> IntArray:
        """The place at a value of the cumulative popularity."""
        place: IntArray = np.minimum(np.searchsorted(self.popularity, value, side="right") - 1, len(self.item_ids) - 1)
        return place


class GridCatalogue(Catalogue):
    """Items on a grid of `traits` dimensions, all with the same number of values; the line runs through it row by row.

    A neighbourhood is a cell; cells have about as many items each. Categories are parts of the line, as before.
    """

    def __init__(
        self,
        items: int,
        categories: int,
        category_skew: float,
        neighborhood_items: int,
        skew: float,
        head: float,
        rng: np.random.Generator,
        traits: int,
    ) -> None:
        super().__init__(items, categories, category_skew, neighborhood_items, skew, head, rng)
        values = max(2, int((items / neighborhood_items + 0.5) ** (1 / traits)))
        self._shape = (values,) * traits
        cells = int(np.prod(self._shape))
        self.first_place = np.arange(cells + 1) * items // cells
        self._weight = self.popularity[self.first_place]

    def traits_of(self, item_ids: IntArray) -> FloatArray:
        """The traits of some items, `float64[n, traits]`: which cell of the grid, counted from 0 in each dimension."""
        place = np.empty(len(self.item_ids), np.int64)
        place[self.item_ids - 1] = np.arange(len(place))
        traits = np.unravel_index(self.neighborhood_of(place[item_ids - 1]), self._shape)
        return np.column_stack(traits).astype(np.float64)

    def moved(self, cell: IntArray, steps: Iterable[IntArray]) -> IntArray:
        """The cell some steps off in each trait; what would leave the grid is turned back at its edge."""
        moved = []
        for value, step, count in zip(np.unravel_index(cell, self._shape), steps, self._shape, strict=True):
            inside = np.abs(value + step)
            moved.append(np.clip(count - 1 - np.abs(count - 1 - inside), 0, None))
        there: IntArray = np.ravel_multi_index(tuple(moved), self._shape)
        return there


def _zipf_sizes(items: int, categories: int, skew: float) -> IntArray:
    """Sizes of the categories, at least 1 each and `items` in total, proportional to a power of the rank."""
    weight = (np.arange(categories) + 3.0) ** -skew
    sizes: IntArray = 1 + np.floor(weight / weight.sum() * (items - categories)).astype(np.int64)
    sizes[: items - int(sizes.sum())] += 1
    return sizes
