"""The scorer in torch on a device: agreement with the CPU, time of a call, time to score every item."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from nann.bundle import SCORER_HALF_FILE, Bundle
from nann.item_rows import ItemRows, candidate_tensor
from nann.scorer import Float32Array, Int32Array
from nann.signature import BEHAVIORS, CANDIDATE_ROWS, CANDIDATES, PROFILE_CODES, SCORER, USER_ENCODER, USER_STATE

from ...python_backend.engines.graph_runner import GraphRunner
from ...python_backend.engines.torch_runner import load_runner
from ...training.reports.alternate import alternate

_RUNS = 20
_EXACT_CHUNK = 8192


@dataclass(frozen=True)
class PointResult:
    """One shape of the padding grid.

    Attributes:
        users: B.
        width: C.
        difference: `difference` from the CPU, in full precision.
        half_difference: the same in half precision; None if the bundle has no scorer in half precision.
        call_ms: median time of a call by the target `torch`, with the copies of inputs and scores.
        eager_ms: the same without a CUDA graph, kernel by kernel.
    """

    users: int
    width: int
    difference: float
    half_difference: float | None
    call_ms: float
    eager_ms: float


def device_name(device: torch.device) -> str:
    """The device as reports name it."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"


def user_states(repository: Path, behaviors: Int32Array, profiles: Int32Array) -> Float32Array:
    """Encodes users on the CPU: `float32[R, S]`."""
    runner = load_runner(repository / USER_ENCODER.name / "1", USER_ENCODER.name, torch.device("cpu"))
    inputs = {BEHAVIORS.name: torch.from_numpy(behaviors), PROFILE_CODES.name: torch.from_numpy(profiles)}
    states: Float32Array = runner.run(inputs).numpy()
    return states


def measure_points(repository: Path, bundle: Bundle, states: Float32Array, device: torch.device) -> list[PointResult]:
    """Parity and time of a call at every point of the padding grid.

    Args:
        repository: with the bundle installed.
        bundle: the same.
        states: `float32[R, S]` of real users, at least as many as the largest batch.
        device: where to measure.
    """
    folder = repository / SCORER.name / "1"
    reference = load_runner(folder, SCORER.name, torch.device("cpu"))
    full = load_runner(folder, SCORER.name, device, half=False)
    has_half = SCORER_HALF_FILE in bundle.manifest["files"]
    half = load_runner(folder, SCORER.name, device, half=True) if has_half else None
    served = half if half is not None and device.type == "cuda" else full
    eager = load_runner(folder, SCORER.name, device, cuda_graphs=False, half=served is half)
    rng, rows, results = np.random.default_rng(0), bundle.item_rows, []
    for users, width in bundle.shape_grid.points:
        candidates = rng.integers(0, bundle.item_count, (users, width)).astype(np.int32)
        expected = _score(reference, states[:users], candidates, rows)
        results.append(
            PointResult(
                users,
                width,
                difference(_score(full, states[:users], candidates, rows), expected),
                difference(_score(half, states[:users], candidates, rows), expected) if half else None,
                _median_ms(lambda c=candidates, u=users: _score(served, states[:u], c, rows)),  # type: ignore[misc]
                _median_ms(lambda c=candidates, u=users: _score(eager, states[:u], c, rows)),  # type: ignore[misc]
            )
        )
    return results


def exhaustive_ms(repository: Path, bundle: Bundle, states: Float32Array, device: torch.device) -> dict[int, float]:
    """Median time to score every item and keep the top K on the device, by number of users: one, and a full batch."""
    runner = load_runner(repository / SCORER.name / "1", SCORER.name, device, cuda_graphs=False)
    rows = bundle.item_rows
    items = torch.arange(bundle.item_count, dtype=torch.int32) if rows is None else torch.from_numpy(rows.base)
    spec, items = (CANDIDATES if rows is None else CANDIDATE_ROWS), items.to(device)
    times = {}
    for users in (1, bundle.shape_grid.batch_sizes[-1]):
        state = torch.from_numpy(states[:users]).to(device)

        def search(state: torch.Tensor = state, users: int = users) -> None:
            parts = (part.expand(users, *part.shape) for part in items.split(_EXACT_CHUNK))
            scores = [runner.run({USER_STATE.name: state, spec.name: part}) for part in parts]
            torch.cat(scores, dim=1).topk(min(bundle.search_params.top_k, len(items))).indices.cpu()

        times[users] = _median_ms(search, runs=5)
    return times


def _score(
    runner: GraphRunner | None, states: Float32Array, candidates: Int32Array, rows: ItemRows | None
) -> Float32Array:
    assert runner is not None
    spec, value = candidate_tensor(candidates, rows)
    inputs = {USER_STATE.name: torch.from_numpy(states), spec.name: torch.from_numpy(value)}
    scores: Float32Array = runner.run(inputs).cpu().numpy()  # .cpu() waits for the device
    return scores


def difference(got: Float32Array, expected: Float32Array) -> float:
    """Largest difference between scores, `float32[B, C]` each, divided by their range where that is above 1."""
    return float(np.abs(got - expected).max() / max(1.0, float(np.ptp(expected))))


def _median_ms(call: Callable[[], object], runs: int = _RUNS) -> float:
    return alternate({"call": call}, runs)["call"]
