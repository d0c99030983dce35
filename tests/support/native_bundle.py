"""The live bundle with the native form of its scorer, which is an inner product, and a check of three users."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from nann.bundle import Bundle
from nann.native_scorer import NATIVE_SCORER_FILE, SIMILARITY
from nann.scorer_check import ScorerCheck
from support import live_bundle

WIDTH = live_bundle.DIM + 1
INNER_PRODUCT = {"form": SIMILARITY, "width": WIDTH}
INNER_PRODUCT |= dict.fromkeys(("heads", "attended", "repeats", "digits", "evidences"), 0)


def make_bundle(path: Path, *, item_rows: bool = False) -> Bundle:
    """`live_bundle.make_bundle`, and what other engines need."""
    bundle = live_bundle.make_bundle(path, item_rows=item_rows)
    rows = {} if item_rows else {"rows": np.pad(bundle.item_vectors, ((0, 0), (0, 1)))}
    np.savez(path / NATIVE_SCORER_FILE, **rows)
    export = {**bundle.manifest["export"], "native": INNER_PRODUCT}
    return with_check(bundle.change(written=[NATIVE_SCORER_FILE], export=export), exact_check(bundle))


def exact_check(bundle: Bundle) -> ScorerCheck:
    """The best 800 items of two users and the best 500 of a third."""
    states = np.random.default_rng(0).normal(size=(3, WIDTH)).astype(np.float32)
    states[:, -1] = 0  # the column that makes the scorer fail
    scores = states[:, :-1] @ bundle.item_vectors.T
    best = np.argsort(-scores, axis=1)[:, :800].astype(np.int32)
    exact = np.take_along_axis(scores, best, 1)
    best[2, 500:] = -1
    return ScorerCheck(states, best, exact)


def with_check(bundle: Bundle, check: ScorerCheck) -> Bundle:
    """The bundle with another check."""
    return bundle.change(written=[check.save(bundle.path)])
