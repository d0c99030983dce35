"""Compares a scorer's TensorRT plan with a reference scorer; needs TensorRT and a GPU."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from nann.bundle import Bundle
from nann.errors import ScorerError
from nann.item_rows import candidate_tensor
from nann.plans import optimization_profiles, plan_file
from nann.scorer import Float32Array, Int32Array, Scorer
from nann.signature import CANDIDATE_SCORES, SCORER, USER_STATE

from ...training.export.tensorrt_api import find_tensorrt, make_logger
from .scorer_calls import difference


class PlanScorer:
    """A `nann.scorer.Scorer` over a TensorRT plan.

    Args:
        plans: folder from `nann build-engine`.
        bundle: the bundle that the plans were built from.

    Raises:
        ConfigError: if TensorRT is not installed.
        ScorerError: if the plan does not load here.
    """

    def __init__(self, plans: Path, bundle: Bundle) -> None:
        trt = find_tensorrt()
        self._logger = make_logger(trt)
        self._runtime = trt.Runtime(self._logger)
        self._engine = self._runtime.deserialize_cuda_engine((plans / plan_file(SCORER.name)).read_bytes())
        if self._engine is None:
            raise ScorerError(f"the plan in {plans} does not load here: {'; '.join(self._logger.errors)}")
        self._context = self._engine.create_execution_context()
        self._profiles = optimization_profiles(bundle, bundle.exported_models[SCORER.name])
        self._rows = bundle.item_rows

    def score(self, user_states: Float32Array, candidates: Int32Array) -> Float32Array:
        """See `nann.scorer.Scorer`; at most as many candidates as the widest optimization profile has."""
        width = candidates.shape[1]
        spec, value = candidate_tensor(candidates, self._rows)
        number = next(n for n, profile in enumerate(self._profiles) if profile.largest[spec][0] >= width)
        stream = torch.cuda.current_stream()
        tensors = {
            USER_STATE.name: torch.from_numpy(user_states).cuda(),
            spec.name: torch.from_numpy(value).cuda(),
            CANDIDATE_SCORES.name: torch.empty(candidates.shape, dtype=torch.float32, device="cuda"),
        }
        self._context.set_optimization_profile_async(number, stream.cuda_stream)
        for name, tensor in tensors.items():
            if name != CANDIDATE_SCORES.name:
                self._context.set_input_shape(name, tuple(tensor.shape))
            self._context.set_tensor_address(name, tensor.data_ptr())
        if not self._context.execute_async_v3(stream.cuda_stream):
            raise ScorerError(f"the plan fails on {list(candidates.shape)}: {'; '.join(self._logger.errors)}")
        scores: Float32Array = tensors[CANDIDATE_SCORES.name].cpu().numpy()
        return scores


def plan_differences(plans: Path, bundle: Bundle, states: Float32Array, reference: Scorer) -> dict[str, float]:
    """The plan's `difference` from the reference scorer at each point of the shape grid, by "BxC"."""
    scorer, rng, differences = PlanScorer(plans, bundle), np.random.default_rng(0), {}
    for users, width in bundle.shape_grid.points:
        candidates = rng.integers(0, bundle.item_count, (users, width)).astype(np.int32)
        got, expected = (one.score(states[:users], candidates) for one in (scorer, reference))
        differences[f"{users}x{width}"] = difference(got, expected)
    return differences
