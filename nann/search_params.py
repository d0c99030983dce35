"""Search parameters: those that a request may set, and those that one search runs with."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from difflib import get_close_matches
from numbers import Integral
from types import MappingProxyType
from typing import Any

import numpy as np

from nann.errors import RequestError
from nann.filters.predicate import Predicate
from nann.signature import ENTRIES, ENTRY_ALL, ENTRY_LAYERS, ENTRY_SEEDS, ON_DEADLINE

_LONGEST_MS = 10**12
_MOST = 2**31 - 1
"""Of anything that is counted in items: their indices are int32."""
_WHOLE_NUMBER = re.compile(r"\s*[+-]?[0-9]{1,18}\s*")
_FLAGS = {"true": True, "false": False}
_NO_BOUNDS: Mapping[str, int] = MappingProxyType({})


@dataclass(frozen=True)
class RequestParameter:
    """How one parameter of a request is documented and checked.

    Attributes:
        about: one line, for `nann query --help` and docs/operations.md.
        default: who sets the value if the request does not: "bundle" or "server"; "": nobody, it does nothing then.
        low: the smallest number.
        high: the largest: a number, or the name of the server's bound (`nann.search_requests.SearchBounds`).
        per_layer: takes one number per layer that the scorer walks, entry layer first.
        words: takes one of these, not a number.
        flag: takes true or false.
        text: takes any text but "", or a filter that is built in Python.
    """

    about: str
    default: str = "bundle"
    low: int = 1
    high: int | str = 0
    per_layer: bool = False
    words: tuple[str, ...] = ()
    flag: bool = False
    text: bool = False

    def read(
        self, name: str, value: Any, bounds: Mapping[str, int] = _NO_BOUNDS, layers: int | None = None
    ) -> int | str | tuple[int, ...]:
        """Checks a value, and converts it to its type in `SearchOptions`.

        Args:
            name: of the parameter, for messages.
            value: a number, true or false may come as text; one number per layer as "100,200,400", as a sequence, or,
                where there is one layer, as a plain number.
            bounds: the server's bounds by name; without an entry the bound is that of int32.
            layers: how many layers the scorer walks; None: not known.

        Raises:
            RequestError: naming the parameter, what came and what was expected.
        """
        if self.words:
            if not isinstance(value, str) or value not in self.words:
                raise RequestError(f"parameter {name} is {value!r}; expected {either(self.words)}")
            return value
        if self.flag:
            if str(value).lower() not in _FLAGS:
                raise RequestError(f"parameter {name} is {value!r}; expected true or false")
            return _FLAGS[str(value).lower()]
        if self.text:
            value = value.text if isinstance(value, Predicate) else value
            if not isinstance(value, str) or not value.strip() or "\0" in value:  # Triton ends a text at a NUL
                raise RequestError(f"parameter {name} is {value!r}; expected text without NUL")
            return value
        high = bounds.get(self.high, _MOST) if isinstance(self.high, str) else self.high
        if not self.per_layer:
            return self._in_bounds(name, _whole_number(value), value, high)
        numbers = [_whole_number(part) for part in _parts(value)]
        if None in numbers or len(numbers) != (layers or len(numbers) or 1):
            one = "one whole number, since this search walks the ground layer alone, as with entry seeds"
            several = f"{layers or ''} whole numbers separated by commas, one for each layer, entry layer first"
            raise RequestError(f"parameter {name} is {value!r}; expected {one if layers == 1 else several.lstrip()}")
        return tuple(self._in_bounds(name, number, value, high) for number in numbers)

    def _in_bounds(self, name: str, number: int | None, value: Any, high: int) -> int:
        if number is None:
            raise RequestError(f"parameter {name} is {value!r}; expected a whole number, {self.low} to {high}")
        if not self.low <= number <= high:
            raise RequestError(f"parameter {name}: {number} is out of bounds; expected {self.low} to {high}")
        return number


def _parameter(about: str, **rules: Any) -> Any:
    return field(default=None, metadata={"parameter": RequestParameter(about, **rules)})


@dataclass(frozen=True)
class SearchOptions:
    """What a request asks of its search; None: not asked for. Every parameter is defined here and nowhere else.

    The server's parser, the clients, `nann query` and `nann plan-shapes` take their parameters from here, and a test
    compares the table in docs/operations.md. Values are checked and converted to the types below;
    `RequestParameter.read` lists the other forms that it accepts.

    Raises:
        RequestError: naming the parameter, what came and what was expected.
    """

    top_k: int | None = _parameter("How many items to return.", high="max_top_k")
    ef: tuple[int, ...] | None = _parameter(
        "Search width of each layer, entry layer first: 100,200,400.", high="max_ef", per_layer=True
    )
    rounds: tuple[int, ...] | None = _parameter(
        "Rounds of each layer, entry layer first: 1,1,3.", low=0, high="max_rounds", per_layer=True
    )
    entry: str | None = _parameter(
        "Where the search enters the graph: layers (the paper's way), seeds (entry points that a light walk finds; ef "
        "and rounds then have one number each), or all (it scores all items, at most max_ef).",
        words=ENTRIES,
    )
    seeds: int | None = _parameter("With entry seeds: how many seeds the search starts from.", high="max_ef")
    seed_ef: int | None = _parameter("With entry seeds: search width of the light walk.", high="max_ef")
    deadline_ms: int | None = _parameter(
        "Milliseconds that the server may work on the request; at most its own deadline.",
        default="server",
        high=_LONGEST_MS,
    )
    on_deadline: str | None = _parameter(
        "The answer if the deadline comes before the last round: error, or partial (the best items so far).",
        default="server",
        words=ON_DEADLINE,
    )
    exclude_history: bool | None = _parameter(
        "Return nothing of the request's own behavior_item_ids, nor of its stored history.", default="", flag=True
    )
    filter: str | Predicate | None = _parameter(  # noqa: RUF009 - it makes a field, as for the others
        'Return only items whose attributes fit: category in (3, 7) and not tag = "adult".', default="", text=True
    )
    filter_name: str | None = _parameter(
        "Return only items of a filter that the bundle or an operator has named.", default="", text=True
    )

    def __post_init__(self) -> None:
        for name, parameter in REQUEST_PARAMETERS.items():
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, parameter.read(name, value))

    @classmethod
    def read(
        cls, asked: Mapping[str, Any], bounds: Mapping[str, int] = _NO_BOUNDS, layers: int | None = None
    ) -> SearchOptions:
        """The options that a request names, checked against the server's bounds.

        Args:
            asked: value by name; other names are ignored.
            bounds: the server's, by name.
            layers: how many layers the scorer walks; None: not known.

        Raises:
            RequestError: naming the parameter, what came and what was expected.
        """
        named = {name: REQUEST_PARAMETERS[name] for name in REQUEST_PARAMETERS if name in asked}
        return cls(**{name: each.read(name, asked[name], bounds, layers) for name, each in named.items()})  # type: ignore[arg-type]

    def to_parameters(self) -> dict[str, int | str | bool]:
        """These options as KServe parameters; a tuple becomes text, "100,200,400"."""
        asked = {name: getattr(self, name) for name in REQUEST_PARAMETERS}
        return {
            name: ",".join(map(str, value)) if isinstance(value, tuple) else value
            for name, value in asked.items()
            if value is not None
        }


REQUEST_PARAMETERS: Mapping[str, RequestParameter] = MappingProxyType(
    {each.name: each.metadata["parameter"] for each in fields(SearchOptions)}
)
"""Each parameter of a request, by name."""
SEARCH_PARAMETERS: Mapping[str, RequestParameter] = MappingProxyType(
    {name: parameter for name, parameter in REQUEST_PARAMETERS.items() if parameter.default == "bundle"}
)
"""Those of the search itself; offline evaluation takes them too."""
CONDITIONS: Mapping[str, RequestParameter] = MappingProxyType(
    {name: parameter for name, parameter in REQUEST_PARAMETERS.items() if not parameter.default}
)
"""Those that say which items may be returned."""


def check_names(names: Iterable[str], others: Sequence[str] = ()) -> None:
    """Refuses a name that no parameter of a request has.

    Args:
        names: what came.
        others: what else may be meant, in a call from Python.

    Raises:
        RequestError: naming the first one and those that there are, the most similar one before them.
    """
    for name in names:
        if name not in REQUEST_PARAMETERS:
            known = (*REQUEST_PARAMETERS, *others)
            # A server's callers choose the name, and the comparison takes long for a long one.
            meant = "".join(f"did you mean {near!r}? " for near in get_close_matches(str(name)[:40], known, 1))
            raise RequestError(f"unknown request parameter {name!r}; {meant}known are {', '.join(known)}")


def either(words: Sequence[str]) -> str:
    """The words as a choice, for messages: '"a" or "b"'."""
    return " or ".join(f'"{word}"' for word in words)


def _whole_number(value: Any) -> int | None:
    # A bool is an int in Python; an integer of NumPy is not.
    if isinstance(value, str) and _WHOLE_NUMBER.fullmatch(value):
        return int(value)
    return int(value) if isinstance(value, Integral) and not isinstance(value, bool) else None


def _parts(value: Any) -> Sequence[Any]:
    if isinstance(value, str):
        return value.split(",")
    several = isinstance(value, Sequence) and not isinstance(value, bytes)
    return list(value) if several or (isinstance(value, np.ndarray) and value.ndim) else [value]


def _require_whole(**numbers: Sequence[Any]) -> None:
    for name, values in numbers.items():
        for value in values:
            if type(value) is not int and not isinstance(value, Integral):  # the first test is the faster one
                raise RequestError(f"{name} is {value!r}; expected a whole number")


@dataclass(frozen=True)
class SeedParams:
    """The light walk that finds a search's entry points on the ground layer (`nann.light_walk`; not in the paper).

    Attributes:
        count: how many entry points it finds, called seeds.
        ef: length of its W; at least `count`.
    """

    count: int
    ef: int

    def __post_init__(self) -> None:
        _require_whole(seeds=(self.count,), seed_ef=(self.ef,))
        if self.count < 1:
            raise RequestError(f"seeds is {self.count}; expected at least 1")
        if self.ef < self.count:
            raise RequestError(f"seed_ef is {self.ef} and seeds {self.count}; expected seed_ef >= seeds")


@dataclass(frozen=True)
class SearchParams:
    """Parameters of one search (Algorithms 1 and 2).

    `ef` and `rounds` hold one value per layer that the scorer walks, the highest layer first and the ground layer last,
    as the paper writes {ef2, ef1, ef0} and {T2, T1, T0}. With `seeds` the scorer walks only the ground layer.

    Attributes:
        top_k: how many items to return.
        ef: length of W, per layer.
        rounds: per layer.
        seeds: None: the search starts at all items of the entry layer, as in the paper. Otherwise it starts on the
            ground layer, at the seeds that a light walk finds.
        every_item: True: the search scores all items, so that its answer is exact; ef has one value, and there are no
            rounds. For a small corpus.
    """

    top_k: int
    ef: tuple[int, ...]
    rounds: tuple[int, ...]
    seeds: SeedParams | None = None
    every_item: bool = False

    @property
    def entry(self) -> str:
        """The entry strategy, one of `ENTRIES` of `nann.signature`."""
        if self.every_item:
            return ENTRY_ALL
        return ENTRY_LAYERS if self.seeds is None else ENTRY_SEEDS

    def scoring_all(self) -> SearchParams:
        """A search with the same top_k that scores all items."""
        return SearchParams(self.top_k, (self.top_k,), (0,), every_item=True)

    def layer_count(self, entry_layer: int) -> int:
        """How many layers the scorer walks in a graph with this entry layer; ef and rounds need as many values."""
        return entry_layer + 1 if self.entry == ENTRY_LAYERS else 1

    def asked(self, options: SearchOptions) -> SearchParams:
        """These parameters, replaced where `options` ask for others.

        A `top_k` above ef of the ground layer raises that ef to `top_k`, unless `ef` is asked for too. `seeds` above ef
        of the light walk raises that ef likewise, unless `seed_ef` is asked for too.

        Raises:
            RequestError: if the parameters do not fit together.
        """
        top_k, ef, rounds, walk = options.top_k or self.top_k, options.ef, options.rounds, self.seeds
        if walk is not None:
            count = options.seeds or walk.count
            walk = SeedParams(count, options.seed_ef or max(walk.ef, count))
        elif options.seeds or options.seed_ef:
            name = "seeds" if options.seeds else "seed_ef"
            raise RequestError(f'parameter {name} came without entry "{ENTRY_SEEDS}"; expected both, or neither')
        return replace(
            self,
            top_k=top_k,
            ef=ef or (*self.ef[:-1], max(self.ef[-1], top_k)),
            rounds=rounds or self.rounds,
            seeds=walk,
        )

    def __post_init__(self) -> None:
        _require_whole(top_k=(self.top_k,), ef=self.ef, rounds=self.rounds)
        if self.top_k < 1:
            raise RequestError(f"top_k is {self.top_k}; expected at least 1")
        if len(self.ef) != len(self.rounds):
            raise RequestError(f"ef has {len(self.ef)} values and rounds {len(self.rounds)}; expected one per layer")
        if not self.ef or min(self.ef) < 1:
            raise RequestError(f"ef is {list(self.ef)}; expected at least 1 per layer")
        if min(self.rounds) < 0:
            raise RequestError(f"rounds is {list(self.rounds)}; expected 0 or more per layer")
        if self.ef[-1] < self.top_k:
            raise RequestError(
                f"ef of the ground layer is {self.ef[-1]} and top_k {self.top_k}; expected ef >= top_k: "
                "raise the last value of ef or lower top_k"
            )
        if self.every_item and (len(self.ef) != 1 or any(self.rounds) or self.seeds is not None):
            raise RequestError(
                f'entry is "{ENTRY_ALL}", ef {list(self.ef)}, rounds {list(self.rounds)} and seeds {self.seeds}; '
                "expected one ef, no rounds and no seeds: all items are scored at once"
            )
        if self.seeds is not None and len(self.ef) != 1:
            raise RequestError(
                f"ef is {list(self.ef)}; expected one value with seeds: the search is on the ground layer alone"
            )
