"""Checks that a served version answers like a search of its own files, which runs here without Triton."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nann.beam_search import beam_search
from nann.bundle import Bundle
from nann.errors import DeployError
from nann.score_agreement import Agreement, typical_score
from nann.search_input import UserBatch
from nann.signature import (
    BEAM_RETRIEVAL,
    BEHAVIOR_ITEM_IDS,
    BEHAVIORS,
    FEATURE_TRANSFORM,
    ITEM_IDS,
    PADDING_ITEM,
    PROFILE_CODES,
    SCORER,
    SCORES,
    USER_ENCODER,
    TensorSpec,
)

from ..engines.onnx_model import EmbeddedScorer, OnnxModel
from ..server.control import ModelControl
from ..version_folder import ONNX_FILE

CHECKED_USERS = 4
MIN_OVERLAP = 0.9
"""Least share of the expected items that must be retrieved: half precision replaces a few of the last ones."""
SCORE_TOLERANCE = 0.1
"""Largest accepted error of an item's score (`nann.score_agreement`)."""


@dataclass(frozen=True)
class Answers:
    """Retrieved items: `item_ids` `int64[B, K]`, `scores` `float32[B, K]`."""

    item_ids: npt.NDArray[np.int64]
    scores: npt.NDArray[np.float32]


def check_release(control: ModelControl, release: Path, version: int) -> None:
    """Compares the answers of a loaded version for a few users with a search under its ONNX files.

    Raises:
        DeployError: if the answers differ.
        ServerError: if the version does not answer.
    """
    users = sample_users(Bundle.open(release / BEAM_RETRIEVAL.name, ()))
    compare(served_answers(control, users, version), expected_answers(release, users), version)


def sample_users(bundle: Bundle) -> npt.NDArray[np.int64]:
    """Behaviour sequences of the bundle's items, always the same: `int64[CHECKED_USERS, L]`."""
    rng = np.random.default_rng(0)
    return rng.choice(np.asarray(bundle.item_ids), (CHECKED_USERS, bundle.sequence_length))


def served_answers(control: ModelControl, users: npt.NDArray[np.int64], version: int) -> Answers:
    """The answers of one version, current or not; calls the ensemble's models one by one."""
    tensors: dict[TensorSpec, npt.NDArray[Any]] = {BEHAVIOR_ITEM_IDS: users}
    for spec in (FEATURE_TRANSFORM, USER_ENCODER, BEAM_RETRIEVAL):
        outputs, _ = control.infer(spec, tensors, version)
        tensors |= {tensor: outputs[tensor.name] for tensor in spec.outputs}
    return Answers(tensors[ITEM_IDS], tensors[SCORES])


def expected_answers(release: Path, users: npt.NDArray[np.int64]) -> Answers:
    """The answers of a search of a version's files, in this process under onnxruntime."""
    bundle = Bundle.open(release / BEAM_RETRIEVAL.name, ())
    encoder = OnnxModel(release / USER_ENCODER.name / ONNX_FILE, USER_ENCODER, 1)
    behaviors, _ = bundle.features.behaviors(users)
    profile = bundle.features.profile(None, len(users))
    states = encoder.run({BEHAVIORS.name: behaviors, PROFILE_CODES.name: profile})

    scorer = EmbeddedScorer.open(release / SCORER.name / ONNX_FILE, rows=bundle.item_rows)
    found = beam_search(bundle.index, scorer, UserBatch(states, behaviors), bundle.search_params)
    return Answers(bundle.external_ids(found.items), found.scores)


def compare(served: Answers, expected: Answers, version: int) -> None:
    """Compares answers; allows another order, and the differences of half precision.

    Raises:
        DeployError: saying what differs.
    """
    typical = typical_score(expected.scores[expected.item_ids != PADDING_ITEM])
    for user, (ids, wanted) in enumerate(zip(served.item_ids, expected.item_ids, strict=True)):
        common, at_served, at_wanted = np.intersect1d(ids, wanted, return_indices=True)
        if len(common) < MIN_OVERLAP * len(np.unique(wanted)):
            raise DeployError(
                f"version {version} does not answer as its files say: it returned {len(common)} of the {len(wanted)} "
                f"items that are expected for test user {user}"
            )
        real = common != PADDING_ITEM
        got, expected_scores = (
            each[None] for each in (served.scores[user][at_served[real]], expected.scores[user][at_wanted[real]])
        )
        error = Agreement.of(got, expected_scores, typical).error if real.any() else 0.0
        if not error <= SCORE_TOLERANCE:
            raise DeployError(
                f"version {version} does not score as its files say: test user {user} has scores that differ by up to "
                f"{error:.1%} of a score; expected at most {SCORE_TOLERANCE:.0%}"
            )
