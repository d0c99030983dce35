"""The time that Triton itself takes: a repository whose models keep their tensors and calls, but do no work."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from nann.bundle import Bundle
from nann.signature import (
    BEAM_RETRIEVAL,
    BEHAVIORS,
    FEATURE_TRANSFORM,
    ITEM_IDS,
    ORIGIN,
    PROFILE_CODES,
    SCORER,
    SCORES,
    USER_ENCODER,
    USER_STATE,
)

from ..corpora.replay import Calls

_MODEL = """\
from nann.perf.servers.empty_model import EmptyModel


class TritonPythonModel(EmptyModel):
    columns = {columns}
    calls = {calls}
"""


def empty(repository: Path, bundle: Bundle, calls: list[Calls], *, calls_scorer: bool) -> None:
    """Replaces the models of a repository by empty ones.

    Args:
        repository: for the target `embedded`, with the bundle installed.
        bundle: the same.
        calls: scorer calls of some users; the empty search makes as many, of their mean sizes.
        calls_scorer: whether searches call the model `scorer`.
    """
    top_k, states = bundle.search_params.top_k, calls[0][0][0]
    columns = {
        FEATURE_TRANSFORM: {BEHAVIORS: bundle.sequence_length, PROFILE_CODES: bundle.profile_width, ORIGIN: 2},
        USER_ENCODER: {USER_STATE: states.shape[1]},
        BEAM_RETRIEVAL: {ITEM_IDS: top_k, SCORES: top_k},
        SCORER: {},
    }
    for model, outputs in columns.items():
        text = _MODEL.format(
            columns={tensor.name: count for tensor, count in outputs.items()},
            calls=mean_sizes(calls) if model is BEAM_RETRIEVAL and calls_scorer else [],
        )
        for path in repository.glob(f"{model.name}/[0-9]*/model.py"):
            path.unlink()  # it may be a link, whose target must stay as it is
            path.write_text(text, encoding="utf-8")


def mean_sizes(calls: list[Calls]) -> list[int]:
    """Mean number of candidates in a user's first call, second call, ...; as many calls as users make on average."""
    sizes = [[candidates.shape[1] for _, candidates in user] for user in calls]
    count = round(np.mean([len(user) for user in sizes]))
    return [round(np.mean([user[place] for user in sizes if place < len(user)])) for place in range(count)]
