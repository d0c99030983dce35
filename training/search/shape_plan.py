"""Plans the padding grid from the shapes of the scorer calls that replayed requests make."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nann.beam_search import beam_search
from nann.bundle import USER_ENCODER_FILE, WARMUP_FILES, Bundle
from nann.durable_files import new_file
from nann.errors import DataError, NannError
from nann.item_rows import candidate_tensor
from nann.kernels import Uint64Array
from nann.request_conditions import RequestConditions
from nann.scorer import Float32Array, Int32Array, Scorer
from nann.search_input import UserBatch
from nann.search_params import REQUEST_PARAMETERS, SearchParams
from nann.search_requests import parse_search
from nann.shape_grid import DEFAULT_GRID, ShapeGrid, plan_grid
from nann.signature import (
    ALLOW_ITEM_IDS,
    BEHAVIOR_ITEM_IDS,
    BEHAVIORS,
    ENSEMBLE,
    EXCLUDE_ITEM_IDS,
    PADDING_ITEM,
    PROFILE_CODES,
    USER_PROFILE,
    USER_STATE,
)

from ..data.prepared import PreparedData
from ..export.onnx_export import require_exported
from ..scorers import OnnxScorer, OnnxUserEncoder


@dataclass(frozen=True)
class Requests:
    """R requests to replay.

    Attributes:
        behaviors: `int32[R, L]`, as the user encoder reads them.
        profiles: `int32[R, P]`, codes of the user profiles.
        params: each request's search parameters.
        blocked: `uint64[1, W]`, items that each request's conditions forbid; None: it has no conditions.
    """

    behaviors: Int32Array
    profiles: Int32Array
    params: Sequence[SearchParams]
    blocked: Sequence[Uint64Array | None]


@dataclass(frozen=True)
class ShapePlan:
    """A grid, and how many scores the replayed scorer calls compute with it.

    Attributes:
        grid: the shapes.
        calls: how many scorer calls were replayed.
        candidates: scores that the searches needed.
        lockstep: scores with each row of a call padded to the widest row of the same call.
        padded: scores with each call padded to `grid`.
        default_padded: scores with each call padded to `DEFAULT_GRID`.
    """

    grid: ShapeGrid
    calls: int
    candidates: int
    lockstep: int
    padded: int
    default_padded: int

    @property
    def waste(self) -> float:
        """Share of the computed scores that only the padding to `grid` causes."""
        return 1 - self.lockstep / self.padded

    @property
    def default_waste(self) -> float:
        """The same with `DEFAULT_GRID`."""
        return 1 - self.lockstep / self.default_padded


class _RecordingScorer:
    """Records users, width and real candidates of each call, and the widest row of candidates."""

    def __init__(self, scorer: Scorer) -> None:
        self._scorer = scorer
        self.calls: list[tuple[int, int, int]] = []
        self.widest: Int32Array = np.zeros(0, np.int32)

    def score(self, user_states: Float32Array, candidates: Int32Array) -> Float32Array:
        """See `nann.scorer.Scorer`."""
        counts = np.count_nonzero(candidates != PADDING_ITEM, axis=1)
        users, width = candidates.shape
        self.calls.append((users, width, int(counts.sum())))
        if counts.max() > len(self.widest):
            self.widest = candidates[counts.argmax(), : counts.max()].copy()
        return self._scorer.score(user_states, candidates)


def data_requests(data: PreparedData, bundle: Bundle, users: int) -> Requests:
    """Requests of `users` validation users, with the bundle's search parameters."""
    queries = data.queries("validation", bundle.sequence_length, users)
    each = len(queries.users)
    return Requests(queries.behaviors, queries.profiles, [bundle.search_params] * each, [None] * each)


def read_requests(path: Path, bundle: Bundle) -> Requests:
    """Requests from a log of one JSON object per line, as clients send them.

    `{"behavior_item_ids": [11, 12], "user_profile": [3], "top_k": 50, "ef": [61, 60, 300], "rounds": [1, 3, 5]}`; only
    `behavior_item_ids` is required. Of named filters only the bundle's are known.

    Raises:
        DataError: if a line is no such object (the message names the line), or the log is empty or can't be read.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise DataError(f"{path} can't be read: {error.strerror}") from error
    each = list(_parsed_lines(path, lines, bundle))
    if not each:
        raise DataError(f"{path} holds no requests; expected one JSON object per line")
    behaviors, profiles, params, blocked = zip(*each, strict=True)
    return Requests(np.concatenate(behaviors), np.concatenate(profiles), params, blocked)


def plan_shapes(bundle: Bundle, requests: Requests, width_count: int) -> ShapePlan:
    """Replays requests, plans the grid, and writes the grid and a warm-up request into the bundle.

    How many users share a scorer call depends on the load. So the requests are replayed in batches of each batch size
    of the grid, which gets at most `width_count` widths.

    Raises:
        BundleError: if the bundle was not exported.
        ConfigError: if `width_count` is below 1.
    """
    require_exported(bundle)
    states = OnnxUserEncoder(bundle.path / USER_ENCODER_FILE).encode(requests.behaviors, requests.profiles)
    own_items = bundle.features.own_items(requests.behaviors)
    users = [
        UserBatch(states[row : row + 1], own_items[row : row + 1], blocked)
        for row, blocked in enumerate(requests.blocked)
    ]
    scorer = _RecordingScorer(OnnxScorer.of_bundle(bundle))
    for batch_size in DEFAULT_GRID.batch_sizes:
        for start in range(0, len(states), batch_size):
            batch = slice(start, start + batch_size)
            beam_search(bundle.index, scorer, UserBatch.concatenate(users[batch]), requests.params[batch])
    calls = np.array(scorer.calls, np.int64)
    grid = plan_grid(calls, width_count)
    _write(bundle, grid, requests, states, scorer.widest)
    return ShapePlan(
        grid,
        calls=len(calls),
        candidates=int(calls[:, 2].sum()),
        lockstep=int(calls[:, :2].prod(axis=1).sum()),
        padded=int(grid.padded_cells(calls).sum()),
        default_padded=int(DEFAULT_GRID.padded_cells(calls).sum()),
    )


def _write(bundle: Bundle, grid: ShapeGrid, requests: Requests, states: Float32Array, candidates: Int32Array) -> None:
    rows: dict[str, npt.NDArray[Any]] = {
        BEHAVIORS.name: requests.behaviors[0],
        PROFILE_CODES.name: requests.profiles[0],
        USER_STATE.name: states[0],
    }
    spec, value = candidate_tensor(candidates[None], bundle.item_rows)
    rows[spec.name] = value[0]
    for name, row in rows.items():
        with new_file(bundle.path / WARMUP_FILES[name]) as temporary:
            np.save(temporary, row)
    bundle.change(written=[WARMUP_FILES[name] for name in rows], shape_grid=grid.to_manifest())


def _parsed_lines(
    path: Path, lines: Sequence[str], bundle: Bundle
) -> Iterator[tuple[Int32Array, Int32Array, SearchParams, Uint64Array | None]]:
    known = {*(spec.name for spec in ENSEMBLE.inputs), *REQUEST_PARAMETERS}
    conditions, features, as_ids = RequestConditions(bundle), bundle.features, bundle.id_kind.row
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            request = json.loads(line)
            if not isinstance(request, dict) or set(request) - known or BEHAVIOR_ITEM_IDS.name not in request:
                raise ValueError(f"expected an object with {BEHAVIOR_ITEM_IDS.name} and perhaps {sorted(known)}")
            ids = as_ids(request[BEHAVIOR_ITEM_IDS.name])
            codes = request.get(USER_PROFILE.name)
            options, params = parse_search(request, bundle.search_params, bundle.search_by_entry)
            profile = features.profile(None if codes is None else np.array([codes], np.int64), 1)
            excluded, allowed = (
                features.item_indices(as_ids(request[spec.name])) if spec.name in request else None
                for spec in (EXCLUDE_ITEM_IDS, ALLOW_ITEM_IDS)
            )
            history = features.item_indices(ids)
            blocked = conditions.blocked(options, history, excluded=excluded, allowed=allowed)
            yield features.behaviors(ids)[0], profile, params, blocked
        except (ValueError, TypeError, OverflowError, NannError) as error:
            raise DataError(f"{path}, line {number}: {error}") from error
