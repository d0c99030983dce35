"""The light walk finds entry points for a search by a cheap score. It is not in the paper, and optional.

    light score of item v for user u  =  <w_u, x_v>

w_u comes from the user encoder, and x_v is a row of a table in the bundle. An item's bias is a column of x_v where w_u
has a 1. A score costs nanoseconds, so scores are not batched in rounds: the walk is the original best-first search on
the ground layer of the same graph, which scores far fewer items than Beam-retrieval with the same ef.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nann.conditions import Conditions
from nann.errors import RequestError, ScorerError
from nann.kernels import NATIVE, Float32Array, Int32Array, Int64Array, Kernels, Uint64Array
from nann.light_codes import LightCodes
from nann.lockstep import take_rows
from nann.search_input import SearchIndex
from nann.search_params import SeedParams
from nann.search_result import fit
from nann.signature import ENTRY_LAYERS, ENTRY_SEEDS, PADDING_ITEM, PADDING_SCORE, USER_STATE
from nann.threads import fitting_threads

_STEPS_PER_EF = 4
"""The most items that a walk expands, as a multiple of its ef: more than it needs, so that no walk is unbounded."""
_STEPS_UNDER = 1.3
"""The same under conditions, where a walk must expand N / matching times as many items, if these are anywhere."""
_SCANNED_PER_STEP = 100
"""How many items a scan scores in the time of one step of a walk."""
_SCANNED_PER_THREAD = 40_000
"""Items that justify a thread: 0.2 ms of work, as its start may take half of that."""


@dataclass(frozen=True, eq=False)
class Seeds:
    """The entry points that light walks found.

    Attributes:
        items: `int32[B, n]`, best light score first, padded with -1; n is the largest count of the batch.
        scores: `float32[B, n]`, light scores, padded with `PADDING_SCORE`.
        light_scored: `int32[B]`, how many light scores were computed.
    """

    items: Int32Array
    scores: Float32Array
    light_scored: npt.NDArray[np.int32]


def light_walk(
    index: SearchIndex,
    user_states: Float32Array,
    params: Sequence[SeedParams],
    conditions: Conditions | None,
    *,
    kernels: Kernels = NATIVE,
    threads: int | None = None,
) -> Seeds:
    """Best-first search on the ground layer, from the items of the entry layer, under the light score.

    Args:
        index: its light vectors are x_v.
        user_states: `float32[B, S]`, whose last d columns are w_u.
        params: one per user.
        conditions: what the users may be shown; None: all items.
        kernels: the inner loops.
        threads: how many threads share the users; None: as many as this process has cores.

    Raises:
        RequestError: if the index has no light vectors, or the users' states are too narrow.
        ScorerError: if a w_u is not finite.
    """
    if index.light_vectors is None:
        raise RequestError(
            f"entry is {ENTRY_SEEDS!r}; expected {ENTRY_LAYERS!r}: this bundle's model has no light score"
        )
    states = light_users(user_states, index.light_width)
    threads = threads or fitting_threads(len(states))
    if conditions is None:
        counts = np.array([min(one.count, index.item_count) for one in params], np.int64)
        seeds = _walk(index, states, params, counts, None, kernels, threads)
    else:
        seeds = _under(conditions, index, states, params, kernels, threads)
    found = int(np.count_nonzero(seeds.items != PADDING_ITEM, axis=1).max(initial=0))
    return Seeds(
        np.ascontiguousarray(seeds.items[:, :found]), np.ascontiguousarray(seeds.scores[:, :found]), seeds.light_scored
    )


def _walk(
    index: SearchIndex,
    states: Float32Array,
    params: Sequence[SeedParams],
    counts: Int64Array,
    conditions: Conditions | None,
    kernels: Kernels,
    threads: int,
) -> Seeds:
    """`int64[B]` seeds of walks for w_u, `float32[B, d]`; none where a walk under conditions would be too long."""
    graph, light_vectors = index.graph, index.light_vectors
    assert light_vectors is not None
    ef = np.array([min(one.ef, graph.item_count) for one in params], np.int32)
    steps = _STEPS_PER_EF * ef.astype(np.int64)
    if conditions is not None:
        steps = _STEPS_UNDER * ef * graph.item_count / np.maximum(conditions.matching, 1)
    width = int(counts.max(initial=0))
    ground = graph.layers[0]
    items, scores, scored = kernels.light_walk(
        ground.indptr,
        ground.neighbors,
        graph.entry_points,
        light_vectors,
        states,
        width,
        ef,
        np.minimum(steps, graph.item_count).astype(np.int32),
        None if conditions is None else conditions.blocked,
        threads,
    )
    return Seeds(*fit(items, scores, counts, width), scored)


def _under(
    conditions: Conditions,
    index: SearchIndex,
    states: Float32Array,
    params: Sequence[SeedParams],
    kernels: Kernels,
    threads: int,
) -> Seeds:
    """Seeds that may be shown: of a scan where that is cheaper than a walk, and where a walk would be too long."""
    assert index.light_vectors is not None
    matching, hindered = conditions.matching, conditions.hindered
    counts = np.minimum([one.count for one in params], matching)
    items = np.full((len(params), counts.max(initial=0)), PADDING_ITEM, np.int32)
    scores = np.full(items.shape, PADDING_SCORE, np.float32)
    scored = np.zeros(len(params), np.int32)
    cheaper = [scan_is_cheaper(one, int(some), index.item_count) for one, some in zip(params, matching, strict=True)]
    walking = hindered & ~np.array(cheaper, np.bool_)
    for rows, among in ((np.flatnonzero(~hindered), None), (np.flatnonzero(walking), conditions)):
        if len(rows):
            some = among if among is None else among[rows]
            chosen = take_rows(states, rows), [params[row] for row in rows], counts[rows]
            found = _walk(index, *chosen, some, kernels, threads)
            width = found.items.shape[1]
            items[rows, :width], scores[rows, :width] = found.items, found.scores
            scored[rows] = found.light_scored
    too_few = np.count_nonzero(items != PADDING_ITEM, axis=1) < counts
    if len(rows := np.flatnonzero(conditions.restricted & too_few)):
        codes, blocked = index.light_codes, conditions.blocked[rows]
        best, best_scores = light_scan(codes, states[rows], blocked, counts[rows], kernels, threads)
        items[rows, : best.shape[1]], scores[rows, : best.shape[1]] = best, best_scores
        scored[rows] += matching[rows].astype(np.int32)
    return Seeds(items, scores, scored)


def scan_is_cheaper(params: SeedParams, matching: int, item_count: int) -> bool:
    """Whether a scan of the `matching` of N items costs less than a light walk under conditions.

    A walk expands N / matching times as many items where the user's taste does not matter, and more where it is for
    items that do not match: the square stands between both.
    """
    steps = params.ef * (item_count / max(matching, 1)) ** 2
    return matching <= _SCANNED_PER_STEP * steps


def light_scan(
    codes: LightCodes,
    user_states: Float32Array,
    blocked: Uint64Array,
    counts: Int64Array,
    kernels: Kernels = NATIVE,
    threads: int | None = None,
) -> tuple[Int32Array, Float32Array]:
    """The best of all items by light score, as exact as eight bits are (`nann.light_codes`), without a walk.

    Args:
        codes: of the items' light vectors.
        user_states: `float32[B, S]`, whose last d columns are w_u.
        blocked: `uint64[B, W]`, items that are left out.
        counts: `int64[B]`, how many items each user gets.
        kernels: the inner loops.
        threads: the most threads that share the items; None: as many as this process has cores.

    Returns:
        `int32[B, max(counts)]` items, best first, padded with -1, and about their light scores, padded.

    Raises:
        RequestError: if the states are too narrow.
        ScorerError: if a w_u is not finite.
    """
    wanted = 64 * blocked.size // _SCANNED_PER_THREAD
    threads = fitting_threads(wanted) if threads is None else max(1, min(threads, wanted))
    users, steps = codes.of_users(light_users(user_states, codes.width))
    items, products = kernels.light_scan(codes.codes, users, blocked, counts.astype(np.int32), threads)
    return items, np.where(items == PADDING_ITEM, PADDING_SCORE, products * steps[:, None]).astype(np.float32)


def light_users(user_states: Float32Array, width: int) -> Float32Array:
    """w_u: the last `width` columns of `float32[B, S]`, C-contiguous.

    Raises:
        RequestError: if the states are narrower than that.
        ScorerError: if one of the numbers is not finite.
    """
    if user_states.ndim != 2 or user_states.shape[1] < width:
        raise RequestError(
            f"{USER_STATE.name} has shape {list(user_states.shape)}; expected [B, {width} or more]: the bundle's user "
            f"encoder ends it with the {width} numbers of the light score"
        )
    users = np.ascontiguousarray(user_states[:, -width:])
    if not np.isfinite(users).all():
        raise ScorerError(f"the light part of {USER_STATE.name} holds NaN or infinity: check the model's weights")
    return users
