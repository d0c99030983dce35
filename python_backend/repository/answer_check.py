"""Checks that a served version answers like a search of its own files, which runs here without Triton."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nann.beam_search import beam_search
from nann.bundle import Bundle
from nann.catalog import LiveCorpus, LiveIndex
from nann.catalog.journal import journal_path
from nann.errors import DeployError
from nann.item_ids import Ids, kind_of
from nann.request_conditions import RequestConditions
from nann.score_agreement import Agreement, typical_score
from nann.search_input import UserBatch
from nann.search_params import SearchOptions
from nann.signature import (
    BEAM_RETRIEVAL,
    BEHAVIOR_ITEM_IDS,
    BEHAVIORS,
    ITEM_IDS,
    PROFILE_CODES,
    SCORER,
    SCORES,
    USER_ENCODER,
    TensorSpec,
)

from ..engines.item_encoder import item_encoder
from ..engines.onnx_model import EmbeddedScorer, OnnxModel
from ..server.control import ModelControl
from ..server.served_form import ServedForm
from ..version_folder import ONNX_FILE
from ..version_history import release_path

CHECKED_USERS = 4
MIN_OVERLAP = 0.9
"""Least share of the expected items that must be retrieved: half precision replaces a few of the last ones."""
SCORE_TOLERANCE = 0.1
"""Largest accepted error of an item's score (`nann.score_agreement`)."""


@dataclass(frozen=True)
class Answers:
    """Retrieved items: `item_ids` `[B, K]`, external ids, `scores` `float32[B, K]`."""

    item_ids: Ids
    scores: npt.NDArray[np.float32]


def check_release(control: ModelControl, repository: Path, version: int) -> None:
    """Compares the answers of a loaded version for a few users with a search under its ONNX files.

    Raises:
        DeployError: if the answers differ.
        ServerError: if the version does not answer.
    """
    release = release_path(repository, version)
    users = sample_users(Bundle.open(release / BEAM_RETRIEVAL.name, ()))
    served = served_answers(control, users, version, ServedForm.of(control))
    compare(served, expected_answers(release, users, journal_path(repository)), version)


def sample_users(bundle: Bundle) -> Ids:
    """Behaviour sequences of items that the user encoder knows, always the same: external ids, `[CHECKED_USERS, L]`."""
    known, kind = bundle.features.known_ids, bundle.id_kind
    items = np.random.default_rng(0).choice(len(known), (CHECKED_USERS, bundle.sequence_length))
    return kind.external(known, items.astype(np.int32), kind.padding)


def served_answers(control: ModelControl, users: Ids, version: int, form: ServedForm) -> Answers:
    """The answers of one version, current or not; calls the ensemble's models one by one."""
    tensors: dict[TensorSpec, npt.NDArray[Any]] = {kind_of(users).spec(BEHAVIOR_ITEM_IDS): users}
    for spec in form.steps:
        outputs, _ = control.infer(spec, tensors, version)
        tensors |= {tensor: outputs[tensor.name] for tensor in spec.outputs}
    return Answers(tensors[ITEM_IDS], tensors[SCORES])


def expected_answers(release: Path, users: Ids, journal: Path) -> Answers:
    """The answers of a search of a version's files and the changes since, in this process under onnxruntime."""
    bundle = Bundle.open(release / BEAM_RETRIEVAL.name, ())
    encoder = OnnxModel(release / USER_ENCODER.name / ONNX_FILE, USER_ENCODER, 1)
    behaviors, _ = bundle.features.behaviors(users)
    profile = bundle.features.profile(None, len(users))
    states = encoder.run({BEHAVIORS.name: behaviors, PROFILE_CODES.name: profile})

    live = LiveCorpus(bundle, journal, item_encoder(bundle))
    snapshot = live.refresh()
    index, rows = LiveIndex(bundle).of(snapshot.added)
    conditions = RequestConditions(bundle)
    conditions.follow(snapshot.removed, snapshot.attributes, snapshot.added)
    own_items = bundle.features.own_items(behaviors)
    blocked = conditions.blocked(SearchOptions(), own_items)
    scorer = EmbeddedScorer.open(release / SCORER.name / ONNX_FILE, rows=rows)
    found = beam_search(index, scorer, UserBatch(states, own_items, blocked), bundle.search_params)
    return Answers(live.id_of(found.items, snapshot.added), found.scores)


def compare(served: Answers, expected: Answers, version: int) -> None:
    """Compares answers; allows another order, and the differences of half precision.

    Raises:
        DeployError: saying what differs.
    """
    kind = kind_of(expected.item_ids)
    typical = typical_score(expected.scores[~kind.is_padding(expected.item_ids)])
    for user, (ids, wanted) in enumerate(zip(served.item_ids, expected.item_ids, strict=True)):
        common, at_served, at_wanted = np.intersect1d(ids, wanted, return_indices=True)
        if len(common) < MIN_OVERLAP * len(np.unique(wanted)):
            raise DeployError(
                f"version {version} does not answer as its files say: it returned {len(common)} of the {len(wanted)} "
                f"items that are expected for test user {user}"
            )
        real = ~kind.is_padding(common)
        got, expected_scores = (
            each[None] for each in (served.scores[user][at_served[real]], expected.scores[user][at_wanted[real]])
        )
        error = Agreement.of(got, expected_scores, typical).error if real.any() else 0.0
        if not error <= SCORE_TOLERANCE:
            raise DeployError(
                f"version {version} does not score as its files say: test user {user} has scores that differ by up to "
                f"{error:.1%} of a score; expected at most {SCORE_TOLERANCE:.0%}"
            )
