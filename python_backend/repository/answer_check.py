"""Does a served version answer as it should? Its own files, searched here without Triton, say what it should."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nann.beam_search import beam_search
from nann.bundle import Bundle
from nann.errors import DeployError
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
"""Least share of the retrieved items that must be the expected ones: half precision moves a few at the edge."""
SCORE_TOLERANCE = 0.02
"""Largest difference of an item's score from the expected one, in parts of the spread of the expected scores."""


@dataclass(frozen=True)
class Answers:
    """What was retrieved: `item_ids` `int64[B, K]`, `scores` `float32[B, K]`."""

    item_ids: npt.NDArray[np.int64]
    scores: npt.NDArray[np.float32]


def check_release(control: ModelControl, release: Path, version: int) -> None:
    """Asks a loaded version, model by model, for a few users and compares with the search under its ONNX files.

    Raises:
        DeployError: if it answers otherwise.
        ServerError: if it does not answer.
    """
    users = sample_users(Bundle.open(release / BEAM_RETRIEVAL.name, ()))
    compare(served_answers(control, users, version), expected_answers(release, users), version)


def sample_users(bundle: Bundle) -> npt.NDArray[np.int64]:
    """Histories of the bundle's own items, always the same: `int64[CHECKED_USERS, L]`."""
    rng = np.random.default_rng(0)
    return rng.choice(np.asarray(bundle.item_ids), (CHECKED_USERS, bundle.sequence_length))


def served_answers(control: ModelControl, users: npt.NDArray[np.int64], version: int) -> Answers:
    """The answers of one version, current or not: the ensemble's steps one by one."""
    tensors: dict[TensorSpec, npt.NDArray[Any]] = {BEHAVIOR_ITEM_IDS: users}
    for spec in (FEATURE_TRANSFORM, USER_ENCODER, BEAM_RETRIEVAL):
        outputs, _ = control.infer(spec, tensors, version)
        tensors |= {tensor: outputs[tensor.name] for tensor in spec.outputs}
    return Answers(tensors[ITEM_IDS], tensors[SCORES])


def expected_answers(release: Path, users: npt.NDArray[np.int64]) -> Answers:
    """The answers of the files of a version, searched in this process under onnxruntime."""
    bundle = Bundle.open(release / BEAM_RETRIEVAL.name, ())
    encoder = OnnxModel(release / USER_ENCODER.name / ONNX_FILE, USER_ENCODER, 1)
    behaviors, _ = bundle.features.behaviors(users)
    profile = bundle.features.profile(None, len(users))
    states = encoder.run({BEHAVIORS.name: behaviors, PROFILE_CODES.name: profile})

    scorer = EmbeddedScorer.open(release / SCORER.name / ONNX_FILE)
    found = beam_search(bundle.index, scorer, UserBatch(states, behaviors), bundle.search_params)
    return Answers(bundle.external_ids(found.items), found.scores)


def compare(served: Answers, expected: Answers, version: int) -> None:
    """Compares answers, reordered and half-precise ones aside.

    Raises:
        DeployError: saying what differs.
    """
    spread = float(np.ptp(expected.scores[expected.item_ids != PADDING_ITEM]))
    for user, (ids, wanted) in enumerate(zip(served.item_ids, expected.item_ids, strict=True)):
        common, at_served, at_wanted = np.intersect1d(ids, wanted, return_indices=True)
        if len(common) < MIN_OVERLAP * len(np.unique(wanted)):
            raise DeployError(
                f"version {version} does not answer as its files say: {len(common)} of the {len(wanted)} items "
                f"expected for test user {user}"
            )
        real = common != PADDING_ITEM
        differences = np.abs(served.scores[user][at_served[real]] - expected.scores[user][at_wanted[real]])
        if not np.all(differences <= SCORE_TOLERANCE * spread):
            raise DeployError(
                f"version {version} does not score as its files say: off by {differences.max():.3g} of a spread of "
                f"{spread:.3g} for test user {user}"
            )
