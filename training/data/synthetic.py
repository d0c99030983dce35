"""Synthetic logs shaped like UserBehavior with a known structure, to measure how the search grows with the corpus.

The catalogue. Items lie on a line, which is cut into categories of uneven sizes, and those into neighbourhoods of about
`neighborhood_items`. Popularity follows Zipf's law, independent of the position on the line.
With `traits` items lie on a grid of as many traits (size, price, ...) instead, whose cells take the neighbourhoods'
place.
The users. An interest is a neighbourhood. A user has some interests at a time, and new ones replace them over time. A
session stays with one interest, but some of its behaviours are in the next neighbourhood, repeat an earlier item, or
have any item. On a grid a behaviour may be a few cells off in each trait.

Each random number is a hash of (random seed, stream, position), the position being a row, a user or an interest. So the
log does not depend on how many users are made at once, and nothing loops over users or rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from nann.errors import ConfigError

from .rows import InteractionLog, RowCounts
from .synthetic_catalogue import Catalogue, GridCatalogue

CHUNK_ROWS = 2_000_000
"""Rows made at once, about 300 MB."""
USERS_PER_ITEM = 976_779 / 4_163_442
BEHAVIORS_PER_USER = 85_384_110 / 976_779
ITEMS_PER_CATEGORY = 4_163_442 / 9_439
"""UserBehavior's proportions (paper, Table 2; the number of categories is the data set's own)."""

_START_S, _SPAN_S = 1_511_539_200, 9 * 86_400  # UserBehavior's nine days
_INTERESTS_APART = 1 << 24  # positions reserved for the interests of one user
_REPRESENTATIVES = 8
_SESSION, _INTEREST, _PHASE, _COUNT, _PICK, _STRAY, _NOISE, _ITEM, _REPEAT, _BACK, _LENGTH, _WHEN, _LEFT, _STEP = range(
    14
)

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class SyntheticSpec:
    """Parameters of a synthetic log.

    Attributes:
        items: size of the corpus; every item occurs.
        users, categories: None: as many per item as in UserBehavior.
        behaviors_per_user: mean; a user has `least_behaviors` plus an exponentially distributed number.
        interests: mean number of interests that a user has at a time.
        category_skew: Zipf exponent of the categories' sizes.
        neighborhood_items: items per neighbourhood, about.
        skew: Zipf exponent of the items' popularity.
        head: share of items, the most popular ones, over which popularity is nearly flat.
        session_behaviors: mean length of a session.
        drift: new interests per behaviour.
        stray: share of behaviours in a neighbourhood next to the session's.
        repeat: share of behaviours that repeat an earlier item of the user.
        noise: share of behaviours with any item, by popularity alone.
        seed: random seed.
        traits: number of traits. 0: no grid, but a line. A cell has about `neighborhood_items`.
        wander: on a grid, in place of `stray`: in each trait a behaviour is at least n cells off with probability
            wander^n.
    """

    items: int = 1_000_000
    users: int | None = None
    behaviors_per_user: float = BEHAVIORS_PER_USER
    least_behaviors: int = 10
    interests: int = 6
    categories: int | None = None
    category_skew: float = 0.7
    neighborhood_items: int = 64
    skew: float = 1.0
    head: float = 5e-4
    session_behaviors: float = 4.0
    drift: float = 0.03
    stray: float = 0.1
    repeat: float = 0.1
    noise: float = 0.05
    seed: int = 0
    traits: int = 0
    wander: float = 0.25

    def __post_init__(self) -> None:
        for name, least in (("items", 1), ("users", 1), ("interests", 1), ("categories", 1), ("neighborhood_items", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ConfigError(f"{name} is {value}; expected at least {least}")
        if self.least_behaviors < 1 or self.behaviors_per_user < self.least_behaviors or self.session_behaviors < 1:
            raise ConfigError(
                f"behaviors_per_user is {self.behaviors_per_user:g}, least_behaviors {self.least_behaviors} and "
                f"session_behaviors {self.session_behaviors:g}; expected at least 1 each, the first the largest"
            )
        if self.traits < 0 or not 0 < self.wander < 1:
            raise ConfigError(
                f"traits is {self.traits} and wander {self.wander}; expected at least 0, and above 0 and below 1"
            )
        for name in ("stray", "repeat", "noise"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; expected a share from 0 to 1")
        if self.head <= 0 or min(self.skew, self.category_skew, self.drift, self.seed) < 0:
            raise ConfigError("skew, category_skew, drift and seed must not be negative, and head must be above 0")
        if self.category_count > self.items:
            raise ConfigError(f"categories is {self.category_count}; expected at most {self.items}, one per item")

    @property
    def user_count(self) -> int:
        """The number of users."""
        return self.users if self.users is not None else max(1, round(self.items * USERS_PER_ITEM))

    @property
    def category_count(self) -> int:
        """The number of categories."""
        return self.categories if self.categories is not None else max(1, round(self.items / ITEMS_PER_CATEGORY))

    @property
    def name(self) -> str:
        """For example synthetic_1m or synthetic_100k."""
        for size, letter in ((1_000_000, "m"), (1_000, "k")):
            if self.items % size == 0:
                return f"synthetic_{self.items // size}{letter}"
        return f"synthetic_{self.items}"

    def settings(self) -> dict[str, Any]:
        """For manifests and folder names; of a grid only with one, since logs without are older than it."""
        grid = () if self.traits else ("traits", "wander")
        own = {name: value for name, value in asdict(self).items() if name not in grid}
        return {"synthetic": True, **own, "users": self.user_count, "categories": self.category_count}


def synthetic_log(
    spec: SyntheticSpec,
    scratch: Path,
    *,
    chunk_rows: int = CHUNK_ROWS,
    progress: Callable[[int, int], None] | None = None,
) -> InteractionLog:
    """Makes a log for `nann.training.data.prepare`.

    Args:
        spec: its parameters.
        scratch: folder for intermediate files; must stay until the log has been used.
        chunk_rows: rows made at once, about; the log does not depend on it.
        progress: called after each chunk with the rows made so far and their total.
    """
    maker = _LogMaker(spec)
    total, made = int(maker.row_end[-1]), 0
    parts: list[Path] = []
    for first, end in _user_blocks(maker.row_end, chunk_rows):
        rows = maker.rows_of_users(first, end)
        parts.append(_write(rows, maker.catalogue, scratch / f"rows-{len(parts):05d}.parquet"))
        made += len(rows.user)
        if progress is not None:
            progress(made, total)
    left_over = maker.left_over()
    if len(left_over.user):
        parts.append(_write(left_over, maker.catalogue, scratch / f"rows-{len(parts):05d}.parquet"))
    counts = RowCounts(made + len(left_over.user))
    settings = {**spec.settings(), "rows_added_for_items_nobody_met": len(left_over.user)}
    return InteractionLog(
        spec.name, ("synthetic: generated",), pl.scan_parquet(parts), counts, settings=settings, ticks_per_s=1
    )


def catalogue_of(spec: SyntheticSpec) -> Catalogue:
    """The items of a log; a `GridCatalogue` if they have traits."""
    sizes = (spec.items, spec.category_count, spec.category_skew, spec.neighborhood_items)
    rest = (spec.skew, spec.head, np.random.default_rng(spec.seed))
    return GridCatalogue(*sizes, *rest, spec.traits) if spec.traits else Catalogue(*sizes, *rest)


class _Rows(NamedTuple):
    """Rows of the log: user from 1, position on the catalogue's line, Unix seconds."""

    user: IntArray
    place: IntArray
    time: IntArray


class _LogMaker:
    """Makes the rows of any range of users, and remembers which items occurred."""

    def __init__(self, spec: SyntheticSpec) -> None:
        self.spec = spec
        self.catalogue = catalogue_of(spec)
        users = np.arange(spec.user_count)
        more = spec.behaviors_per_user - spec.least_behaviors
        lengths = spec.least_behaviors + np.floor(-np.log1p(-self._uniform(_LENGTH, users)) * (more + 0.5))
        self.row_end = np.cumsum(lengths.astype(np.int64))
        self._seen = np.zeros(spec.items, np.bool_)
        shape = (self.catalogue.neighborhood_count, _REPRESENTATIVES)
        self._visitor, self._visit_time = np.zeros(shape, np.int64), np.zeros(shape, np.int64)

    def rows_of_users(self, first: int, end: int) -> _Rows:
        """The behaviours of users `first` to `end` - 1, in order."""
        row_first = int(self.row_end[first - 1]) if first else 0
        lengths = np.diff(self.row_end[first:end], prepend=row_first)
        user = np.repeat(np.arange(first, end), lengths)
        local = np.arange(len(user))
        number = local - np.repeat(np.cumsum(lengths) - lengths, lengths)  # within the user, from 0
        row = local + row_first
        place = self._drawn(row, user, number)
        place = place[self._sources(row, number)]
        fraction = (number + self._uniform(_WHEN, row)) / np.repeat(lengths, lengths)
        rows = _Rows(user + 1, place, _START_S + (fraction * _SPAN_S).astype(np.int64))
        self._remember(rows, row)
        return rows

    def left_over(self) -> _Rows:
        """One row for each item that has none yet, of a user with behaviours in its neighbourhood."""
        place = np.flatnonzero(~self._seen)
        home = self.catalogue.neighborhood_of(place)
        slot = place % _REPRESENTATIVES
        slot = np.where(self._visitor[home, slot] > 0, slot, self._visitor[home].argmax(axis=1))
        anyone = 1 + (self._uniform(_LEFT, place) * self.spec.user_count).astype(np.int64)
        visitor, time = self._visitor[home, slot], self._visit_time[home, slot]
        return _Rows(np.where(visitor > 0, visitor, anyone), place, np.where(visitor > 0, time, _START_S))

    def _drawn(self, row: IntArray, user: IntArray, number: IntArray) -> IntArray:
        """Each row's position before repeats: near the session's interest, or anywhere."""
        spec, catalogue = self.spec, self.catalogue
        begins = (number == 0) | (self._uniform(_SESSION, row) < 1 / spec.session_behaviors)
        session = np.cumsum(begins) - 1
        near = self._interest(row[begins], user[begins], number[begins])[session]
        if isinstance(catalogue, GridCatalogue):
            home = catalogue.moved(near, self._steps(row))
        else:
            stray = self._uniform(_STRAY, row)
            home = catalogue.beside(near, (stray >= 1 - spec.stray / 2).astype(np.int64) - (stray < spec.stray / 2))
        low, high = catalogue.popularity_range(home)
        anywhere = self._uniform(_NOISE, row) < spec.noise
        low, high = np.where(anywhere, 0, low), np.where(anywhere, catalogue.popularity[-1], high)
        return catalogue.at_popularity(low + self._uniform(_ITEM, row) * (high - low))

    def _steps(self, row: IntArray) -> Iterator[IntArray]:
        """How many cells off its interest each row's behaviour is, by trait; as often below as above."""
        for trait in range(self.spec.traits):
            side = 2 * self._uniform(_STEP + trait, row) - 1
            steps = np.floor(np.log1p(-np.abs(side)) / np.log(self.spec.wander)).astype(np.int64)
            yield np.where(side < 0, -steps, steps)

    def _interest(self, row: IntArray, user: IntArray, number: IntArray) -> IntArray:
        """The neighbourhood of each session that starts at these rows."""
        many = 1 + np.floor(self._uniform(_COUNT, user) * (2 * self.spec.interests - 1)).astype(np.int64)
        oldest = np.floor(number * self.spec.drift + self._uniform(_PHASE, user)).astype(np.int64)
        interest = oldest + (self._uniform(_PICK, row) * many).astype(np.int64)
        drawn = self._uniform(_INTEREST, user * _INTERESTS_APART + interest)
        return self.catalogue.neighborhood_at_popularity(drawn * self.catalogue.popularity[-1])

    def _sources(self, row: IntArray, number: IntArray) -> IntArray:
        """For each row, the row whose item it has: itself, or an earlier one of the same user if it is a repeat."""
        local = np.arange(len(row))
        back = 1 + np.floor(-np.log1p(-self._uniform(_BACK, row)) * 10).astype(np.int64)
        repeats = (self._uniform(_REPEAT, row) < self.spec.repeat) & (back <= number)
        source = np.where(repeats, local - back, local)
        while not np.array_equal(further := source[source], source):  # until no row repeats a repeat
            source = further
        return source

    def _remember(self, rows: _Rows, row: IntArray) -> None:
        self._seen[rows.place] = True
        cell = (self.catalogue.neighborhood_of(rows.place), row % _REPRESENTATIVES)
        self._visitor[cell], self._visit_time[cell] = rows.user, rows.time  # of several visitors the last one stays

    def _uniform(self, stream: int, place: IntArray) -> FloatArray:
        """Uniform numbers in [0, 1), one per position: splitmix64 of (random seed, stream, position)."""
        key = _mix(_mix(np.array([self.spec.seed], np.uint64)) + np.uint64(stream))
        return (_mix(key + place.astype(np.uint64)) >> np.uint64(11)) * 2.0**-53


def _mix(value: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    value = (value + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


def _user_blocks(row_end: IntArray, chunk_rows: int) -> list[tuple[int, int]]:
    """Ranges of users with about `chunk_rows` rows each."""
    marks = np.arange(1, row_end[-1] // chunk_rows + 1) * chunk_rows
    cuts = np.unique(np.concatenate([[0], np.searchsorted(row_end, marks) + 1, [len(row_end)]]))
    return [(int(first), int(end)) for first, end in pairwise(cuts)]


def _write(rows: _Rows, catalogue: Catalogue, path: Path) -> Path:
    item, category = catalogue.item_ids[rows.place], catalogue.categories[rows.place]
    pl.DataFrame({"user": rows.user, "item": item, "category": category, "time": rows.time}).write_parquet(path)
    return path
