"""Three ways to search on a device, side by side at equal coverage and under masks, one user at a time.

All matching items are scored; or the exact best of a light scan are, as in two-stage retrieval; or a walk scores what
it meets. All three score with the engine of the target `torch`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from nann import item_sets
from nann.beam_search import beam_search
from nann.bundle import Bundle
from nann.errors import ConfigError
from nann.metrics import coverage
from nann.scorer import Float32Array, Int32Array
from nann.search_input import UserBatch
from nann.search_params import SearchParams, SeedParams
from nann.shape_grid import ShapeGrid
from nann.signature import CANDIDATE_ROWS, CANDIDATES, ENTRY_SEEDS, PADDING_ITEM, SCORER, USER_STATE

from ...python_backend.engines.graph_runner import GraphRunner
from ...python_backend.engines.torch_runner import load_runner
from ...training.reports.alternate import alternate
from ...training.reports.text import listing

SHARES = (1.0, 0.1, 0.01)
LEVELS = (0.9, 0.95, 0.98, 0.99)
ALL, SCAN, WALK = "all", "scan", "walk"
_SCANNED = (1, 2, 4, 8, 16, 32)
"""How many items are scored after a scan, in multiples of top_k."""
_WIDER = (0.5, 1, 2, 4, 8)
"""Walks: multiples of the seeds and of the ef that the bundle recommends."""
_EXACT_CHUNK = 8192
_REPEATS = 3

Search = Callable[[int], Int32Array]
"""User -> `int32[K]`."""


@dataclass(frozen=True)
class DeepScorer:
    """The scorer on a device, for one user; a `nann.scorer.Scorer`.

    Attributes:
        runner: the engine.
        grid: the shapes that it has captured.
        rows: `float32[N, R]` of the items, on the device; None: the scorer has them.
    """

    runner: GraphRunner
    grid: ShapeGrid
    rows: Tensor | None

    @classmethod
    def of(cls, repository: Path, bundle: Bundle, device: torch.device) -> DeepScorer:
        """The installed scorer of a bundle, in half precision where the target `torch` serves it so."""
        rows = None if bundle.item_rows is None else torch.from_numpy(np.array(bundle.item_rows.base)).to(device)
        return cls(load_runner(repository / SCORER.name / "1", SCORER.name, device), bundle.shape_grid, rows)

    def scores(self, state: Tensor, items: Tensor) -> Tensor:
        """(`float32[1, S]`, `int32[C]`) -> `float32[C]`: in a shape of the grid; more items than it has, in chunks."""
        if len(items) > self.grid.widths[-1]:
            return torch.cat([self._scores(state, part) for part in items.split(_EXACT_CHUNK)])
        padding = self.grid.width(len(items)) - len(items)
        return self._scores(state, pad(items, (0, padding), value=PADDING_ITEM))[: len(items)]

    def _scores(self, state: Tensor, items: Tensor) -> Tensor:
        if self.rows is None:
            return self.runner.run({USER_STATE.name: state, CANDIDATES.name: items[None]})[0].clone()
        rows = self.rows[items.clamp(min=0).long()][None]
        return self.runner.run({USER_STATE.name: state, CANDIDATE_ROWS.name: rows})[0].clone()

    def score(self, user_states: Float32Array, candidates: Int32Array) -> Float32Array:
        """See `nann.scorer.Scorer`; candidates are `int32[1, C]`."""
        state, items = (torch.from_numpy(array).to(self.runner.device) for array in (user_states, candidates[0]))
        scores: Float32Array = self.scores(state, items).float().cpu().numpy()[None]
        return scores

    def best(self, state: Tensor, items: Tensor, top_k: int) -> Int32Array:
        """The K best of `int32[C]` items: `int32[K]`, C >= K."""
        found: Int32Array = items[self.scores(state, items).topk(top_k).indices].cpu().numpy()
        return found


def measure_strategies(repository: Path, bundle: Bundle, users: UserBatch, device: torch.device) -> dict[str, Any]:
    """Coverage and time for a user of every setting of every strategy, with masks that leave a share of the items.

    Args:
        repository: with the bundle installed.
        bundle: the same.
        users: real ones, with their own items.
        device: where to measure.

    Returns:
        `users` and `points`: `share`, `matching`, `strategy`, `setting`, `coverage`, `ms`.

    Raises:
        ConfigError: if the bundle has no light vectors.
    """
    if bundle.light_vectors is None:
        raise ConfigError("the bundle has no light vectors, so that there is no light scan")
    deep, rng, points = DeepScorer.of(repository, bundle, device), np.random.default_rng(0), []
    top_k = bundle.search_params.top_k
    for share in SHARES:
        count = max(round(share * bundle.item_count), top_k)
        allowed = item_sets.of_items(rng.permutation(bundle.item_count)[:count].astype(np.int32), bundle.item_count)
        searches = _searches(deep, bundle, users, allowed, device)
        lists = {name: np.stack(_each(search, len(users))) for name, search in searches.items()}
        ms = alternate({name: partial(_each, search, len(users)) for name, search in searches.items()}, _REPEATS)
        for (strategy, setting), items in lists.items():
            about = {"share": share, "matching": count, "strategy": strategy, "setting": setting}
            found = {"coverage": coverage(items, lists[ALL, ""]), "ms": ms[strategy, setting] / len(users)}
            points.append(about | found)
    return {"users": len(users), "points": points}


def _each(search: Search, users: int) -> list[Int32Array]:
    return [search(user) for user in range(users)]


def _searches(
    deep: DeepScorer, bundle: Bundle, users: UserBatch, allowed: Any, device: torch.device
) -> Mapping[tuple[str, str], Search]:
    """Every setting under a mask, by strategy and what tells it from others."""
    top_k, matching = bundle.search_params.top_k, item_sets.members(allowed)
    items = torch.from_numpy(matching).to(device)
    light = torch.from_numpy(np.array(bundle.light_vectors)).to(device)
    states = torch.from_numpy(users.states).to(device)
    mask = torch.full((bundle.item_count,), -torch.inf, device=device)
    mask[items.long()] = 0
    assert users.own_items is not None
    own = [torch.from_numpy(row[np.isin(row, matching)]).to(device).long() for row in users.own_items]
    blocked = None if len(matching) == bundle.item_count else item_sets.invert(allowed, bundle.item_count)[None]

    def scan(count: int, user: int) -> Int32Array:
        scores = light @ states[user, -light.shape[1] :] + mask  # [N]
        scores[own[user]] = torch.inf  # scored in any case, as among the seeds of a walk
        return deep.best(states[user : user + 1], scores.topk(count).indices.int(), top_k)

    def walk(params: SearchParams, user: int) -> Int32Array:
        one = replace(users[user : user + 1], blocked=blocked)
        found: Int32Array = beam_search(bundle.index, deep, one, params).items[0]
        return found

    searches: dict[tuple[str, str], Search] = {(ALL, ""): lambda user: deep.best(states[user : user + 1], items, top_k)}
    for multiple in _SCANNED:
        count = min(multiple * top_k, len(matching))
        searches[SCAN, f"{count:,} scored"] = partial(scan, count)
    for params in _walks(bundle):
        assert params.seeds is not None
        searches[WALK, f"{params.seeds.count:,} seeds, ef {params.ef[0]:,}"] = partial(walk, params)
    return searches


def _walks(bundle: Bundle) -> list[SearchParams]:
    params = bundle.search_by_entry[ENTRY_SEEDS]
    assert params.seeds is not None
    walks = []
    for wider in _WIDER:
        count, seed_ef, ef = (
            min(max(round(wider * value), 1), bundle.item_count)
            for value in (params.seeds.count, params.seeds.ef, params.ef[0])
        )
        walks.append(replace(params, ef=(max(ef, params.top_k),), seeds=SeedParams(count, seed_ef)))
    return walks


def strategies_text(result: Mapping[str, Any]) -> str:
    """The fastest setting of each strategy that reaches each coverage: a table for people."""
    rows = []
    for share in SHARES:
        points = [point for point in result["points"] if point["share"] == share]
        for level in LEVELS:
            row = {"matching": f"{points[0]['matching']:,} ({share:.0%})", "level": f"{level:.0%}"}
            for strategy in (ALL, SCAN, WALK):
                enough = [one for one in points if one["strategy"] == strategy and one["coverage"] >= level]
                fastest = min(enough, key=lambda one: one["ms"], default=None)
                row[strategy] = (
                    "not reached" if fastest is None else f"{fastest['ms']:.3f} {fastest['setting']}".strip()
                )
            rows.append(row)
    columns = {
        "items matching": "{matching}",
        "coverage": "{level}",
        "all of them ms": "{all}",
        "light scan ms": "{scan}",
        "walk ms": "{walk}",
    }
    return f"One user at a time, {result['users']} users.\n\n{listing(rows, columns)}"
