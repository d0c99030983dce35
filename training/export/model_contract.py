"""Checks before the export that user encoder and scorer keep the contract for serving (docs/custom_scorer.md)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from nann.bundle import LIGHT_VECTORS_FILE, Bundle
from nann.errors import ScorerError
from nann.score_agreement import TOLERANCE, Agreement
from nann.signature import PADDING_ITEM

from ..scorers import GatheringScorer


def check_modules(bundle: Bundle, user_encoder: nn.Module, scorer: nn.Module) -> Tensor:
    """Runs both modules in torch; returns the user states of two example users, `float32[2, S]`.

    Raises:
        ScorerError: naming what came and what was expected.
    """
    try:
        state = _checked_state(user_encoder, *example_users(bundle, 2))
        _checked_scores(scorer, state, example_candidates(bundle, 2, 3))
        _check_light(bundle, state)
    except ScorerError:
        raise
    except Exception as error:  # whatever the modules raise
        raise ScorerError(
            f"the modules fail on item indices 0 to {bundle.item_count - 1}: {root_cause(error)}; "
            + (_half_advice(user_encoder, scorer) or _expected(scorer))
        ) from error
    _check_independence(bundle, user_encoder, scorer)
    return state


def _expected(scorer: nn.Module) -> str:
    if isinstance(scorer, GatheringScorer):
        return f"expected a scorer of candidate_rows, float32[B, C, {scorer.rows.width}]: item_rows were given"
    return "expected a row for every item of the bundle in each item table"


def _half_advice(*modules: nn.Module) -> str:
    """What to do if a module has weights in half precision, else nothing."""
    for module in modules:
        for name, weight in module.state_dict().items():
            if weight.dtype in (torch.float16, torch.bfloat16):
                return f"{name} is {weight.dtype}; expected float32 weights: call .float() on both modules"
    return ""


def example_users(bundle: Bundle, users: int) -> tuple[Tensor, Tensor]:
    """Random histories of every length, an empty one among them, and profiles: int32[users, L], int32[users, P]."""
    rng = np.random.default_rng(users)
    length = bundle.sequence_length
    behaviors = rng.integers(len(bundle.features.known_ids), size=(users, length), dtype=np.int32)
    kept = np.linspace(length, 0, users).astype(int) if users > 1 else np.array([length])
    behaviors[np.arange(length) < length - kept[:, None]] = -1
    sizes = [len(field["values"]) + 1 for field in bundle.manifest["profile_fields"]] or [1]
    profiles = np.stack([rng.integers(size, size=users) for size in sizes], axis=1).astype(np.int32)
    return torch.from_numpy(behaviors), torch.from_numpy(profiles)


def example_candidates(bundle: Bundle, users: int, width: int) -> Tensor:
    """Random item indices: int32[users, width]."""
    rng = np.random.default_rng(width)
    return torch.from_numpy(rng.integers(bundle.item_count, size=(users, width), dtype=np.int32))


def plain_module(module: nn.Module) -> nn.Module:
    """The module inside those of `torch.compile` and data parallelism, on the CPU and in evaluation mode."""
    while isinstance(inner := getattr(module, "_orig_mod", None) or _parallel(module), nn.Module):
        module = inner
    return module.cpu().eval()


def _parallel(module: nn.Module) -> nn.Module | None:
    wrappers = (nn.DataParallel, nn.parallel.DistributedDataParallel)
    return module.module if isinstance(module, wrappers) else None


def root_cause(error: BaseException) -> str:
    """Type and first line of the first exception in a chain."""
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"


def _checked_state(user_encoder: nn.Module, behaviors: Tensor, profiles: Tensor) -> Tensor:
    with torch.inference_mode():
        state = user_encoder(behaviors, profiles)
    expected = f"float32[{len(behaviors)}, S]"
    _require_float32("the user encoder", state, f"{len(behaviors)} users", expected)
    if state.ndim != 2 or len(state) != len(behaviors):
        raise ScorerError(
            f"the user encoder gives {_shown(state)} for {len(behaviors)} users; "
            f"expected {expected}: flatten and concatenate what the scorer needs"
        )
    nan = state.isnan().any(dim=1)
    if nan.any():
        history = "without behaviours" if bool((behaviors[nan] < 0).all()) else "with behaviours"
        raise ScorerError(
            f"the user encoder gives NaN in torch for a user {history}: not the export's doing; 0/0 in a mean and a "
            "softmax over -inf give NaN: clamp counts to 1, and mask with -1e9"
        )
    return torch.from_numpy(state.numpy().copy())


def _require_float32(who: str, given: object, asked: str, expected: str) -> None:
    if not isinstance(given, Tensor):
        raise ScorerError(f"{who} returns {type(given).__name__} for {asked}; expected one tensor, {expected}")
    if given.dtype != torch.float32:
        raise ScorerError(
            f"{who} gives {_shown(given)} for {asked}; expected {expected}: call .float() on the module, and leave out "
            "autocast; `nann export --half` makes the scorer in half precision"
        )


def _shown(tensor: Tensor) -> str:
    return f"{tensor.dtype}{list(tensor.shape)}"


def _check_light(bundle: Bundle, state: Tensor) -> None:
    """If the bundle has light vectors, user states must end with the user's side of the light score."""
    if bundle.light_vectors is None:
        return
    width = bundle.light_vectors.shape[1]
    if state.shape[1] < width:
        raise ScorerError(
            f"the user encoder gives {list(state.shape)}; expected at least {width} columns, of which the last {width} "
            f"are the user's side of the light score: the bundle has {LIGHT_VECTORS_FILE}"
        )
    if not state[:, -width:].isfinite().all():
        raise ScorerError("the user encoder's light part holds NaN or infinity; an empty history must give numbers")


def _checked_scores(scorer: nn.Module, state: Tensor, candidates: Tensor) -> Tensor:
    with torch.inference_mode():
        scores = scorer(state, candidates)
    expected = f"float32{list(candidates.shape)}"
    _require_float32("the scorer", scores, f"candidates {list(candidates.shape)}", expected)
    if scores.shape != candidates.shape:
        raise ScorerError(
            f"the scorer gives {_shown(scores)} for candidates {list(candidates.shape)}; expected {expected}: "
            "one score for each candidate, with .squeeze(-1) and not .squeeze()"
        )
    return torch.from_numpy(scores.numpy().copy())


def _check_independence(bundle: Bundle, user_encoder: nn.Module, scorer: nn.Module) -> None:
    """A score must not depend on the other users and candidates of the call, padding included."""
    behaviors, profiles = example_users(bundle, 3)
    candidates = example_candidates(bundle, 3, 4)
    padded = nn.functional.pad(candidates, (0, 1), value=PADDING_ITEM)
    try:
        together = _checked_scores(scorer, _checked_state(user_encoder, behaviors, profiles), padded)[:, :-1]
        alone = torch.empty_like(together)
        for i in range(3):
            state = _checked_state(user_encoder, behaviors[i : i + 1], profiles[i : i + 1])
            for j in range(4):
                alone[i, j] = _checked_scores(scorer, state, candidates[i : i + 1, j : j + 1])[0, 0]
    except ScorerError:
        raise
    except Exception as error:  # whatever the module raises
        raise ScorerError(
            f"the modules fail for one user and one candidate, or where a candidate is {PADDING_ITEM} (padding): "
            f"{root_cause(error)}; clamp candidates to 0 before the look-up"
        ) from error
    if alone.isnan().any():
        raise ScorerError("the scorer gives NaN in torch: not the export's doing; a masked candidate may score -1e9")
    agreement = Agreement.of(together.numpy(), alone.numpy())
    if not agreement.error <= TOLERANCE:
        raise ScorerError(
            f"the score of a candidate changes by {agreement.error:.2e} of its size with the other candidates and "
            f"users of the call; expected at most {TOLERANCE:.0e}: a score must depend on the user and the item alone"
        )


def half_advice(*paths: Path) -> str:
    """For a file that computes in half precision: the module has such weights, or autocast inside."""
    half = (onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16)
    for path in paths:
        values = onnx.load(str(path), load_external_data=False).graph.value_info
        if any(value.type.tensor_type.elem_type in half for value in values):
            name = path.stem.replace("_", " ")
            return f"; the {name} computes in half precision inside: call .float() on the module, leave out autocast"
    return ""
