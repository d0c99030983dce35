"""The search that a fresh bundle recommends, measured on a few validation users once graph and scorer are there."""

from __future__ import annotations

from time import monotonic
from typing import Any

from nann.bundle import Bundle
from nann.bundle_check import fills
from nann.scorer_check import CHECKED_ITEMS
from nann.search_requests import SERVED_BOUNDS
from nann.signature import ENTRY_ALL

from ..data.prepared import PreparedData
from ..scorers import OnnxScorer
from .checked_users import add_check, add_check_of
from .measured_users import MeasuredUsers, bundle_users
from .tune import entries_to_tune, tune_entries, tuning_record, write_tuning
from .tuning_search import tune_all
from .tuning_subject import SPLIT
from .tuning_trials import Aim, SearchTuning, merged

USERS = 32
ENOUGH = 0.98
AIM, MAX_SHARE = Aim(coverage=ENOUGH + 0.01), 0.25
"""The aim is a point higher, since coverage differs by up to that between so few users and all of them."""


def recommend_search(bundle: Bundle, data: PreparedData) -> dict[str, Any] | None:
    """Tries a short ladder of settings, and makes the cheapest that covers 99% the bundle's default.

    Of a small corpus all items are scored, where that is cheapest or no search within a quarter of it covers so much.
    Of a larger one the best within a quarter becomes the default. A bundle that was tuned stays as it is.
    `nann export` calls this, not `nann index`: what is measured is the scorer that will be served. The bundle also gets
    what its server's engines are compared on (`nann.scorer_check`).

    Args:
        bundle: exported, of the same scorer as its graph.
        data: the data set it was made from.

    Returns:
        The entry about it in the bundle's notes, `tuning`; None if the data set has no validation users, and the
        bundle keeps the configuration's search.
    """
    known: dict[str, Any] | None = bundle.notes.get("tuning")
    if known is not None:
        add_check_of(bundle, data)
        return known
    if not len(data.target_users(SPLIT)):
        return None
    start = monotonic()
    queries, batch = bundle_users(bundle, data, SPLIT, USERS)
    scorer, top_k = OnnxScorer.of_bundle(bundle), bundle.search_params.top_k
    most = max(top_k, min(CHECKED_ITEMS, bundle.item_count))
    users = MeasuredUsers.of(scorer, batch, queries, bundle.item_count, most)
    bundle, users = add_check(bundle, scorer, users), users.cut(top_k)
    for max_share in (MAX_SHARE, 1.0):  # of a tiny corpus every search scores more than a quarter
        by_entry: dict[str, SearchTuning] = {}
        for entry in entries_to_tune(bundle):  # each by itself: requests may ask for either
            by_entry |= tune_entries(bundle.index, scorer, users, AIM, max_share, [entry], quick=True)
        if merged(list(by_entry.values())).nearest is not None:
            break
    if bundle.item_count <= SERVED_BOUNDS.max_ef:
        by_entry[ENTRY_ALL] = tune_all(users, AIM, bundle.item_count, 1.0)
    best = merged(list(by_entry.values())).nearest
    assert best is not None
    record = {
        "by": "nann export",
        **tuning_record(users, by_entry, max_share),
        **best.measures,
        "seconds": round(monotonic() - start, 1),
    }
    nearest = [each.nearest.params for each in by_entry.values() if each.nearest is not None]
    # Of a small corpus a quarter may be less than top_k: such an entry keeps the configuration's search.
    found = [params for params in nearest if fills(bundle.index, params)]
    write_tuning(bundle, bundle.graph, best.params, found, record)
    return record
