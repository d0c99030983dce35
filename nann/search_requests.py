"""Parses a request's parameters, checks them against the server's bounds, and fills in the bundle's defaults."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from nann.errors import BundleError, RequestError
from nann.search_params import REQUEST_PARAMETERS, SearchOptions, SearchParams, check_names, either
from nann.signature import ENTRY_ALL, ENTRY_SEEDS, ON_DEADLINE_ERROR, REQUEST_KEY

# Parameters that Triton, its clients and those of other KServe servers add to a request for their own use.
_RESERVED = frozenset(
    (
        *("sequence_id", "sequence_start", "sequence_end", "priority", "timeout", "headers"),
        *("binary_data_output", "content_type", REQUEST_KEY.name),
    )
)
_RESERVED_PREFIX = "triton_"
ARRIVED = "triton_nann_arrived_ns"
"""The parameter that `_request_guard.cpp` adds to each request that comes from outside."""


@dataclass(frozen=True)
class SearchBounds:
    """The most that one request may ask for (config.pbtxt of beam_retrieval).

    Attributes:
        max_top_k: results.
        max_ef: ef of any layer and of the light walk; also the most seeds.
        max_rounds: rounds of any layer.
    """

    max_top_k: int
    max_ef: int
    max_rounds: int

    def check_defaults(self, params: SearchParams, item_count: int) -> None:
        """Checks the parameters that a bundle of N items recommends: when they are found, at installation and at load.

        Raises:
            BundleError: naming the bound to raise.
        """
        seeds = () if params.seeds is None else (params.seeds,)
        scored = item_count if params.every_item else 0
        asked = (
            ("max_top_k", params.top_k, self.max_top_k),
            ("max_ef", max(*params.ef, *(walk.ef for walk in seeds), scored), self.max_ef),
            ("max_rounds", max(params.rounds), self.max_rounds),
        )
        for name, value, bound in asked:
            if value > bound:
                raise BundleError(
                    f"the bundle recommends {value} where the server's {name} is {bound}; recommend less, or "
                    f"raise {name} in config.pbtxt of beam_retrieval"
                )

    def check_all(self, item_count: int) -> None:
        """Checks whether a request may have all of N items scored.

        Raises:
            RequestError: if there are more than `max_ef`.
        """
        if item_count > self.max_ef:
            raise RequestError(
                f'entry "{ENTRY_ALL}" would score all {item_count:,} items; expected a corpus of at most '
                f"{self.max_ef:,}: ask for another entry, or raise max_ef in config.pbtxt of beam_retrieval"
            )

    def of_corpus(self, item_count: int) -> SearchBounds:
        """These bounds for a corpus of `item_count` items; a search returns no more items than that, or than its ef."""
        return replace(self, max_top_k=min(self.max_top_k, self.max_ef, item_count))


SERVED_BOUNDS = SearchBounds(max_top_k=1000, max_ef=4000, max_rounds=20)
"""Those of a server whose configuration was not changed; a test compares."""


@dataclass(frozen=True)
class TimeLimit:
    """How long a request may take.

    Attributes:
        deadline_ms: no round starts later than this after the request's arrival.
        on_deadline: what the request gets then, one of `ON_DEADLINE` of `nann.signature`.
    """

    deadline_ms: int
    on_deadline: str = ON_DEADLINE_ERROR

    def asked(self, options: SearchOptions) -> TimeLimit:
        """This limit, replaced where a request asks for another; its deadline can't be longer than the server's."""
        deadline_ms = min(options.deadline_ms or self.deadline_ms, self.deadline_ms)
        return TimeLimit(deadline_ms, options.on_deadline or self.on_deadline)


def own_parameters(text: str) -> Mapping[str, Any]:
    """The parameters of a request that this project defines, by name.

    Args:
        text: all parameters as JSON, as Triton passes them; "" is none.

    Raises:
        RequestError: if it is not a JSON object, or names an unknown parameter.
    """
    try:
        parameters = _parsed(text) if text else {}
    except (ValueError, RecursionError) as error:
        raise RequestError(f"the request's parameters are not JSON: {error}") from error
    if not isinstance(parameters, dict):
        raise RequestError("the request's parameters are not a JSON object; expected names and values")
    own = {
        name: value
        for name, value in parameters.items()
        if name not in _RESERVED and not name.startswith(_RESERVED_PREFIX)
    }
    check_names(own)
    return own


def parse_search(
    asked: Mapping[str, Any],
    defaults: SearchParams,
    by_entry: Mapping[str, SearchParams],
    bounds: SearchBounds | None = None,
) -> tuple[SearchOptions, SearchParams]:
    """Reads what a request asks for, and fills in the bundle's defaults.

    Args:
        asked: the request's parameters by name; other names are ignored.
        defaults: the parameters of a request that asks for none.
        by_entry: the defaults for each entry strategy that the bundle can serve, for a request that names one; to score
            all items needs none.
        bounds: the server's; None: no bounds.

    Returns:
        The options as asked for, and the search's parameters: see `SearchParams.asked`.

    Raises:
        RequestError: naming the parameter, what came and what was expected.
    """
    if "entry" in asked:
        entry = REQUEST_PARAMETERS["entry"].read("entry", asked["entry"])
        by_entry = {**by_entry, defaults.entry: defaults}
        by_entry.setdefault(ENTRY_ALL, defaults.scoring_all())
        if entry not in by_entry:
            why = ": this bundle's model has no light score" if entry == ENTRY_SEEDS else ""
            raise RequestError(f"parameter entry is {entry!r}; expected {either(list(by_entry))}{why}")
        defaults = by_entry[entry]
    if bounds is not None and defaults.top_k > bounds.max_top_k:
        defaults = replace(defaults, top_k=bounds.max_top_k)
    options = SearchOptions.read(asked, vars(bounds) if bounds is not None else {}, layers=len(defaults.ef))
    return options, defaults.asked(options)


def request_key(text: str) -> int:
    """The parameter `request_key` of a request's parameters, which are JSON; 0 if there is none.

    Raises:
        RequestError: if it is not a 64-bit signed number.
    """
    if REQUEST_KEY.name not in text:
        return 0
    key = _parsed(text).get(REQUEST_KEY.name, 0)
    if not isinstance(key, int) or isinstance(key, bool) or not -(2**63) <= key < 2**63:
        raise RequestError(f"{REQUEST_KEY.name} is {key!r}; expected a 64-bit signed number")
    return key


def excludes_history(text: str) -> bool:
    """Whether a request's parameters, which are JSON, have `exclude_history`.

    Raises:
        RequestError: if it is neither true nor false.
    """
    name = "exclude_history"
    return name in text and bool(REQUEST_PARAMETERS[name].read(name, _parsed(text).get(name, False)))


def arrived_ns(text: str) -> int | None:
    """When the server took the request, on the monotonic clock, as its preloaded library says; None: it does not say.

    Triton refuses parameters of clients whose names begin so.
    """
    arrived = _parsed(text).get(ARRIVED) if ARRIVED in text else None
    return arrived if isinstance(arrived, int) else None


@lru_cache(maxsize=8)
def _parsed(text: str) -> Any:
    """Several functions read the parameters of a request, one after the other; nobody changes what they get."""
    return json.loads(text)
