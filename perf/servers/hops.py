"""What Triton takes of a request: the repository's models, each with its tensors and calls and without its work."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from nann.bundle import Bundle
from nann.signature import (
    ARRIVED_NS,
    BEAM_RETRIEVAL,
    BEHAVIORS,
    FEATURE_TRANSFORM,
    ITEM_IDS,
    ITEMS_SCORED,
    PROFILE_CODES,
    SCORER,
    SCORES,
    STATUS,
    UNKNOWN_ITEMS,
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
    """Takes the work out of the models of a repository that was installed for this.

    Args:
        repository: of the target `embedded`.
        bundle: that was installed.
        calls: the scorer calls of some users; the empty search makes as many, of their mean sizes.
        calls_scorer: whether searches call the model scorer at all.
    """
    top_k, states = bundle.search_params.top_k, calls[0][0][0]
    columns = {
        FEATURE_TRANSFORM: {
            BEHAVIORS: bundle.sequence_length,
            PROFILE_CODES: bundle.profile_width,
            UNKNOWN_ITEMS: 1,
            ARRIVED_NS: 1,
        },
        USER_ENCODER: {USER_STATE: states.shape[1]},
        BEAM_RETRIEVAL: {ITEM_IDS: top_k, SCORES: top_k, ITEMS_SCORED: 1, STATUS: 1},
        SCORER: {},
    }
    for model, outputs in columns.items():
        text = _MODEL.format(
            columns={tensor.name: count for tensor, count in outputs.items()},
            calls=mean_sizes(calls) if model is BEAM_RETRIEVAL and calls_scorer else [],
        )
        for path in repository.glob(f"{model.name}/[0-9]*/model.py"):
            path.unlink()  # where it is a link, what it leads to must stay
            path.write_text(text, encoding="utf-8")


def mean_sizes(calls: list[Calls]) -> list[int]:
    """How many candidates a user's first call has on average, the second, ...; as many as users make on average."""
    sizes = [[candidates.shape[1] for _, candidates in user] for user in calls]
    count = round(np.mean([len(user) for user in sizes]))
    return [round(np.mean([user[place] for user in sizes if place < len(user)])) for place in range(count)]
