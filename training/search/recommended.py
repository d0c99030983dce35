"""The searches that a fresh bundle recommends, before any was measured."""

from __future__ import annotations

from dataclasses import replace

from nann.errors import ConfigError
from nann.search_params import SearchOptions, SearchParams, SeedParams
from nann.search_requests import SearchBounds, parse_search
from nann.signature import ENTRY_LAYERS, ENTRY_SEEDS

from ..config import SearchConfig

_SEEDS, _SEEDED_EF, _SEEDED_ROUNDS = 4, 2, 4
"""Until better ones are measured: seeds and ef in multiples of top_k, and rounds."""


def seeded_search(top_k: int, item_count: int) -> SearchParams:
    """Default parameters for entry "seeds", before `nann export` or `nann tune` has measured better ones."""
    count = min(_SEEDS * top_k, item_count)
    return SearchParams(top_k, (_SEEDED_EF * top_k,), (_SEEDED_ROUNDS,), SeedParams(count, count))


def recommended_searches(
    search: SearchConfig, asked: SearchOptions, item_count: int, *, light: bool, bounds: SearchBounds
) -> list[SearchParams]:
    """One search for each entry that the bundle can serve, the default first.

    Args:
        search: for entry "layers".
        asked: what the default search has instead, and its entry; a `top_k` is that of every search.
        item_count: N.
        light: whether there is a light score. Entry by seeds is far cheaper, so it is then the default; where all items
            would be seeds, they are scored without a walk.
        bounds: the server's.

    Raises:
        ConfigError: if there are fewer items than top_k.
        RequestError: if what is asked for does not fit together.
        BundleError: if a search exceeds the bounds.
    """
    top_k = asked.top_k or search.top_k
    if item_count < top_k:
        raise ConfigError(f"the data set has {item_count} items and top_k is {top_k}; lower search.top_k and ef")
    layers = SearchParams(search.top_k, search.ef, search.rounds).asked(SearchOptions(top_k=top_k))
    by_entry = {ENTRY_SEEDS: seeded_search(top_k, item_count)} if light else {}
    by_entry[ENTRY_LAYERS] = layers
    first = next(iter(by_entry.values()))
    if first.seeds is not None and first.seeds.count == item_count <= bounds.max_ef:
        first = first if asked.to_parameters().keys() - {"top_k", "entry"} else first.scoring_all()
    _, first = parse_search(asked.to_parameters(), first, by_entry)
    found = [first, *(one for one in by_entry.values() if one.entry != first.entry)]
    for params in found:
        bounds.check_defaults(params, item_count)
    return found


def fitted(params: SearchParams, entry_layer: int) -> SearchParams:
    """Parameters for the layers that a graph has; that of a small corpus lacks upper layers.

    Raises:
        ConfigError: if there is no value for a layer.
    """
    layers = params.layer_count(entry_layer)
    if len(params.ef) < layers:
        raise ConfigError(
            f"search.ef has {len(params.ef)} values and the graph {layers} layers; give one value per layer"
        )
    return replace(params, ef=params.ef[-layers:], rounds=params.rounds[-layers:])
