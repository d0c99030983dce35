"""Adds to a bundle what its server's engines are compared on (`nann.scorer_check`)."""

from __future__ import annotations

import numpy as np

from nann.bundle import Bundle
from nann.scorer import Scorer
from nann.scorer_check import CHECKED_ITEMS, CHECKED_USERS, ScorerCheck

from ..data.prepared import PreparedData
from ..scorers import OnnxScorer
from .measured_users import MeasuredUsers, bundle_users

_SPLIT = "validation"


def add_check_of(bundle: Bundle, data: PreparedData) -> Bundle:
    """`add_check` for validation users, whose exact lists are found first; without such users nothing is added."""
    if not len(data.target_users(_SPLIT)):
        return bundle
    queries, batch = bundle_users(bundle, data, _SPLIT, CHECKED_USERS)
    scorer = OnnxScorer.of_bundle(bundle)
    most = min(CHECKED_ITEMS, bundle.item_count)
    return add_check(bundle, scorer, MeasuredUsers.of(scorer, batch, queries, bundle.item_count, most))


def add_check(bundle: Bundle, scorer: Scorer, users: MeasuredUsers) -> Bundle:
    """Writes the best items of the first users with their exact scores; returns the changed bundle.

    `scorer` is the bundle's, in full precision; `users` have lists of `CHECKED_ITEMS` items, or fewer.
    """
    some = slice(0, CHECKED_USERS)
    states, candidates = users.batch.states[some], np.ascontiguousarray(users.exact[some, :CHECKED_ITEMS])
    check = ScorerCheck(states, candidates, scorer.score(states, candidates))
    return bundle.change(written=[check.save(bundle.path)])
