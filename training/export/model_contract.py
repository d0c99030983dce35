"""Checks before the export that user encoder and scorer keep the contract for serving (docs/custom_scorer.md)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from nann.bundle import LIGHT_VECTORS_FILE, Bundle
from nann.errors import ScorerError
from nann.scorer import Float32Array
from nann.signature import PADDING_ITEM

TOLERANCE = 1e-4
"""Largest accepted `relative_difference` of scores."""


def check_modules(bundle: Bundle, user_encoder: nn.Module, scorer: nn.Module) -> Tensor:
    """Runs both modules in torch; returns the user states of two example users, `float32[2, S]`.

    Raises:
        ScorerError: naming what came and what was expected.
    """
    try:
        state = _checked_state(user_encoder, *example_users(bundle, 2))
        _check_scores(scorer, state, example_candidates(bundle, 2, 3))
        _check_light(bundle, state)
    except ScorerError:
        raise
    except Exception as error:  # whatever the modules raise
        raise ScorerError(
            f"the modules fail on item indices 0 to {bundle.item_count - 1}: {root_cause(error)}; "
            "expected a row for every item of the bundle in each item table"
        ) from error
    _check_independence(bundle, user_encoder, scorer)
    return state


def example_users(bundle: Bundle, users: int) -> tuple[Tensor, Tensor]:
    """Random histories of every length, an empty one among them, and profiles: int32[users, L], int32[users, P]."""
    rng = np.random.default_rng(users)
    length = bundle.sequence_length
    behaviors = rng.integers(bundle.item_count, size=(users, length), dtype=np.int32)
    kept = np.linspace(length, 0, users).astype(int) if users > 1 else np.array([length])
    behaviors[np.arange(length) < length - kept[:, None]] = -1
    sizes = [len(field["values"]) + 1 for field in bundle.manifest["profile_fields"]] or [1]
    profiles = np.stack([rng.integers(size, size=users) for size in sizes], axis=1).astype(np.int32)
    return torch.from_numpy(behaviors), torch.from_numpy(profiles)


def example_candidates(bundle: Bundle, users: int, width: int) -> Tensor:
    """Random item indices: int32[users, width]."""
    rng = np.random.default_rng(width)
    return torch.from_numpy(rng.integers(bundle.item_count, size=(users, width), dtype=np.int32))


def relative_difference(scores: Float32Array, expected: Float32Array) -> float:
    """The largest difference of two scores, relative to the spread of the expected ones where that is above 1."""
    return float(np.abs(scores - expected).max() / max(1.0, float(np.ptp(expected))))


def root_cause(error: BaseException) -> str:
    """Type and first line of the first exception in a chain."""
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"


def _checked_state(user_encoder: nn.Module, behaviors: Tensor, profiles: Tensor) -> Tensor:
    with torch.inference_mode():
        state = user_encoder(behaviors, profiles)
    if state.dtype != torch.float32 or state.ndim != 2 or len(state) != len(behaviors):
        raise ScorerError(
            f"the user encoder gives {state.dtype}{list(state.shape)} for {len(behaviors)} users; "
            f"expected float32[{len(behaviors)}, S]: flatten and concatenate what the scorer needs"
        )
    return torch.from_numpy(state.numpy().copy())


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


def _check_scores(scorer: nn.Module, state: Tensor, candidates: Tensor) -> None:
    with torch.inference_mode():
        scores = scorer(state, candidates)
    if scores.dtype != torch.float32 or scores.shape != candidates.shape:
        raise ScorerError(
            f"the scorer gives {scores.dtype}{list(scores.shape)} for candidates {list(candidates.shape)}; "
            f"expected float32{list(candidates.shape)}"
        )


def _check_independence(bundle: Bundle, user_encoder: nn.Module, scorer: nn.Module) -> None:
    """A score must not depend on the other users and candidates of the call, padding included."""
    behaviors, profiles = example_users(bundle, 3)
    candidates = example_candidates(bundle, 3, 4)
    padded = nn.functional.pad(candidates, (0, 1), value=PADDING_ITEM)
    try:
        with torch.inference_mode():
            together = scorer(user_encoder(behaviors, profiles), padded)[:, :-1]
            states = [user_encoder(behaviors[i : i + 1], profiles[i : i + 1]) for i in range(3)]
            rows = [[scorer(states[i], one)[0] for one in candidates[i : i + 1].split(1, dim=1)] for i in range(3)]
    except Exception as error:  # whatever the module raises
        raise ScorerError(
            f"the modules fail for one user and one candidate, or where a candidate is {PADDING_ITEM} (padding): "
            f"{root_cause(error)}; clamp candidates to 0 before the look-up"
        ) from error
    alone = torch.stack([torch.cat(row) for row in rows])
    difference = relative_difference(together.numpy(), alone.numpy())
    if difference > TOLERANCE:  # NaN is left to the parity check, which names the shape
        raise ScorerError(
            f"the score of a candidate changes by {difference:.2e} with the other candidates and users of the call; "
            f"expected at most {TOLERANCE:.0e}: a score must depend on the user and the item alone"
        )
