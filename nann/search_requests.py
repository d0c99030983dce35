"""From a request's parameters to what its search may spend: parsed, checked against the server's bounds."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from nann.errors import BundleError, RequestError
from nann.search_params import SearchParams
from nann.signature import (
    ENTRIES,
    ENTRY_SEEDS,
    ON_DEADLINE,
    ON_DEADLINE_ERROR,
    PARAM_DEADLINE_MS,
    PARAM_EF,
    PARAM_ENTRY,
    PARAM_ON_DEADLINE,
    PARAM_ROUNDS,
    PARAM_SEED_EF,
    PARAM_SEEDS,
    PARAM_TOP_K,
    REQUEST_PARAMETERS,
)

# What Triton and its clients put among a request's parameters for themselves.
_RESERVED = frozenset(
    ("sequence_id", "sequence_start", "sequence_end", "priority", "timeout", "headers", "binary_data_output")
)
_RESERVED_PREFIX = "triton_"
_LONGEST_MS = 10**12
_WHOLE_NUMBER = re.compile(r"\s*[+-]?[0-9]{1,18}\s*")


@dataclass(frozen=True)
class SearchBounds:
    """The most that one request may ask for (config.pbtxt of beam_retrieval).

    Attributes:
        max_top_k: results.
        max_ef: ef of any layer, and of the light walk; so the most seeds too.
        max_rounds: rounds of any layer.
    """

    max_top_k: int
    max_ef: int
    max_rounds: int

    def check_defaults(self, params: SearchParams) -> None:
        """Checks the bundle's recommended parameters, once at load.

        Raises:
            BundleError: naming the bound to raise.
        """
        seeds = () if params.seeds is None else (params.seeds,)
        asked = (
            ("max_top_k", params.top_k, self.max_top_k),
            ("max_ef", max(*params.ef, *(walk.ef for walk in seeds), 0), self.max_ef),
            ("max_rounds", max(params.rounds), self.max_rounds),
        )
        for name, value, bound in asked:
            if value > bound:
                raise BundleError(
                    f"the bundle recommends {value} where the server's {name} is {bound}; "
                    f"raise {name} in config.pbtxt of beam_retrieval"
                )


@dataclass(frozen=True)
class TimeLimit:
    """How long a request may take.

    Attributes:
        deadline_ms: no round starts later than this after the request's arrival.
        on_deadline: what it gets then, one of `ON_DEADLINE` of `nann.signature`.
    """

    deadline_ms: int
    on_deadline: str = ON_DEADLINE_ERROR


def own_parameters(text: str) -> Mapping[str, Any]:
    """The parameters of a request that are ours.

    Args:
        text: all of them as JSON, as Triton hands them over; "" is none.

    Raises:
        RequestError: if it is no JSON object, or names one that we don't know.
    """
    try:
        parameters = json.loads(text) if text else {}
    except (ValueError, RecursionError) as error:
        raise RequestError(f"the request's parameters are not JSON: {error}") from error
    if not isinstance(parameters, dict):
        raise RequestError("the request's parameters are no JSON object; expected names and values")
    own = {
        name: value
        for name, value in parameters.items()
        if name not in _RESERVED and not name.startswith(_RESERVED_PREFIX)
    }
    for name in own:
        if name not in REQUEST_PARAMETERS:
            raise RequestError(f"unknown request parameter {name!r}; known are {', '.join(REQUEST_PARAMETERS)}")
    return own


def parse_search_params(
    asked: Mapping[str, Any],
    defaults: SearchParams,
    bounds: SearchBounds,
    item_count: int,
    by_entry: Mapping[str, SearchParams] = MappingProxyType({}),
) -> SearchParams:
    """Parses a request's parameters over the bundle's defaults.

    See `SearchParams.asked` for what a request gets that asks for a part.

    Args:
        asked: of `own_parameters`.
        defaults: what a request without parameters gets; its length says how many layers are searched.
        bounds: the server's.
        item_count: N, the most that can be returned.
        by_entry: the defaults of a request that names its entry strategy; those strategies that the bundle can serve.

    Raises:
        RequestError: naming the parameter, what came and what was expected.
    """
    if PARAM_ENTRY in asked:
        defaults = _defaults_of(asked[PARAM_ENTRY], {**by_entry, defaults.entry: defaults})
    layers = len(defaults.ef)
    # No search returns more than its ef.
    limit = min(bounds.max_top_k, bounds.max_ef, item_count)

    def number(name: str, high: int) -> int | None:
        return _bounded(name, asked[name], 1, high) if name in asked else None

    def per_layer(name: str, low: int, high: int) -> tuple[int, ...] | None:
        return _one_per_layer(name, asked[name], low, high, layers) if name in asked else None

    return defaults.asked(
        top_k=number(PARAM_TOP_K, limit) or min(defaults.top_k, limit),
        ef=per_layer(PARAM_EF, 1, bounds.max_ef),
        rounds=per_layer(PARAM_ROUNDS, 0, bounds.max_rounds),
        seeds=number(PARAM_SEEDS, bounds.max_ef),
        seed_ef=number(PARAM_SEED_EF, bounds.max_ef),
    )


def parse_time_limit(asked: Mapping[str, Any], server: TimeLimit) -> TimeLimit:
    """Parses a request's deadline and what is to happen then.

    Args:
        asked: of `own_parameters`.
        server: what a request gets that names none. One that asks for longer gets no more: whoever waits for ten
            minutes does not mind an answer within ten seconds.

    Raises:
        RequestError: naming the parameter, what came and what was expected.
    """
    deadline_ms = _bounded(PARAM_DEADLINE_MS, asked.get(PARAM_DEADLINE_MS, server.deadline_ms), 1, _LONGEST_MS)
    policy = asked.get(PARAM_ON_DEADLINE, server.on_deadline)
    if policy not in ON_DEADLINE:
        expected = " or ".join(f'"{name}"' for name in ON_DEADLINE)
        raise RequestError(f"request parameter {PARAM_ON_DEADLINE} is {policy!r}; expected {expected}")
    return TimeLimit(min(deadline_ms, server.deadline_ms), policy)


def _defaults_of(entry: Any, by_entry: Mapping[str, SearchParams]) -> SearchParams:
    if not isinstance(entry, str) or entry not in by_entry:
        expected = " or ".join(f'"{name}"' for name in ENTRIES if name in by_entry)
        why = ": this bundle's model has no light score" if entry == ENTRY_SEEDS else ""
        raise RequestError(f"request parameter {PARAM_ENTRY} is {entry!r}; expected {expected}{why}")
    return by_entry[entry]


def _one_per_layer(name: str, value: Any, low: int, high: int, layers: int) -> tuple[int, ...]:
    # A single layer may come as a plain number.
    parts = [str(value)] if isinstance(value, int) else value.split(",") if isinstance(value, str) else []
    try:
        numbers = tuple(_bounded(name, part, low, high) for part in parts)
    except _NotANumberError:
        numbers = ()
    if len(numbers) != layers:
        example = ",".join(["100"] * layers if name == PARAM_EF else ["1"] * layers)
        raise RequestError(
            f"request parameter {name} is {value!r}; expected {layers} whole numbers separated by commas, "
            f'one a layer, entry layer first, such as "{example}"'
        )
    return numbers


class _NotANumberError(RequestError):
    """Tells a malformed value from one out of bounds."""


def _bounded(name: str, value: Any, low: int, high: int) -> int:
    # Parameters may come as numbers or as strings of them; a bool is an int in Python.
    number = int(value) if isinstance(value, str) and _WHOLE_NUMBER.fullmatch(value) else value
    if isinstance(number, bool) or not isinstance(number, int):
        raise _NotANumberError(f"request parameter {name} is {value!r}; expected a whole number from {low} to {high}")
    if not low <= number <= high:
        raise RequestError(f"request parameter {name}: {number} is out of bounds; expected {low} to {high}")
    return number
