"""From a request's parameters to what its search may spend: parsed, checked against the server's bounds."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from nann.errors import BundleError, RequestError
from nann.search_params import SearchParams, SeedParams
from nann.signature import (
    ENTRIES,
    ENTRY_SEEDS,
    PARAM_EF,
    PARAM_ENTRY,
    PARAM_ROUNDS,
    PARAM_SEED_EF,
    PARAM_SEEDS,
    PARAM_TOP_K,
    REQUEST_PARAMETERS,
    SEED_PARAMETERS,
)

# What Triton and its clients put among a request's parameters for themselves.
_RESERVED = frozenset(
    ("sequence_id", "sequence_start", "sequence_end", "priority", "timeout", "headers", "binary_data_output")
)
_RESERVED_PREFIX = "triton_"
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


def parse_search_params(
    text: str,
    defaults: SearchParams,
    bounds: SearchBounds,
    item_count: int,
    by_entry: Mapping[str, SearchParams] = MappingProxyType({}),
) -> SearchParams:
    """Parses a request's parameters over the bundle's defaults.

    A request that asks for more items than the default ef of the ground layer, and says nothing about ef, gets that
    ef raised to its top_k; so for more seeds than the default ef of the light walk.

    Args:
        text: the parameters as JSON, as Triton hands them over; "" is none.
        defaults: what a request without parameters gets; its length says how many layers are searched.
        bounds: the server's.
        item_count: N, the most that can be returned.
        by_entry: the defaults of a request that names its entry strategy; those strategies that the bundle can serve.

    Raises:
        RequestError: naming the parameter, what came and what was expected.
    """
    asked = _own_parameters(text)
    if PARAM_ENTRY in asked:
        defaults = _defaults_of(asked[PARAM_ENTRY], {**by_entry, defaults.entry: defaults})
    layers = len(defaults.ef)
    limit = min(bounds.max_top_k, item_count)
    top_k = _bounded(PARAM_TOP_K, asked[PARAM_TOP_K], 1, limit) if PARAM_TOP_K in asked else min(defaults.top_k, limit)
    if PARAM_EF in asked:
        ef = _one_per_layer(PARAM_EF, asked[PARAM_EF], 1, bounds.max_ef, layers)
    else:
        ef = (*defaults.ef[:-1], max(defaults.ef[-1], min(top_k, bounds.max_ef)))
    rounds = defaults.rounds
    if PARAM_ROUNDS in asked:
        rounds = _one_per_layer(PARAM_ROUNDS, asked[PARAM_ROUNDS], 0, bounds.max_rounds, layers)
    return SearchParams(top_k, ef, rounds, _seeds(asked, defaults.seeds, bounds))


def _defaults_of(entry: Any, by_entry: Mapping[str, SearchParams]) -> SearchParams:
    if not isinstance(entry, str) or entry not in by_entry:
        expected = " or ".join(f'"{name}"' for name in ENTRIES if name in by_entry)
        why = ": this bundle's model has no light score" if entry == ENTRY_SEEDS else ""
        raise RequestError(f"request parameter {PARAM_ENTRY} is {entry!r}; expected {expected}{why}")
    return by_entry[entry]


def _seeds(asked: Mapping[str, Any], defaults: SeedParams | None, bounds: SearchBounds) -> SeedParams | None:
    if defaults is None:
        for name in SEED_PARAMETERS:
            if name in asked:
                raise RequestError(
                    f'request parameter {name} came without {PARAM_ENTRY} "{ENTRY_SEEDS}"; expected both, or neither'
                )
        return None

    def value(name: str, default: int, low: int, high: int) -> int:
        return _bounded(name, asked[name], low, high) if name in asked else default

    count = value(PARAM_SEEDS, defaults.count, 1, bounds.max_ef)
    ef = value(PARAM_SEED_EF, max(defaults.ef, count), 1, bounds.max_ef)
    return SeedParams(count, ef)


def _own_parameters(text: str) -> Mapping[str, Any]:
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
