"""The outcome of one request: beam_retrieval answers from it, and metrics and traces read it.

Like `retriever`, it does not depend on Triton.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nann.errors import DeadlineExceeded, RequestError
from nann.signature import ITEM_IDS, ITEMS_MATCHING, ITEMS_SCORED, REQUEST_KEY, SCORES, STATUS, Tensors


class Kind(str, enum.Enum):
    """How a request ended; the value is its name in metrics and logs."""

    COMPLETE = "complete"
    PARTIAL = "partial"
    DEGRADED = "degraded"
    REFUSED = "refused"
    LATE = "late"
    FAILED = "failed"
    HEARTBEAT = "heartbeat"


_KIND_OF_ERROR = (
    (RequestError, Kind.REFUSED),
    (DeadlineExceeded, Kind.LATE),
    (Exception, Kind.FAILED),
)


@dataclass(frozen=True, eq=False)
class Outcome:
    """How one request ended.

    Attributes:
        kind: the kind of answer or of error.
        outputs: the tensors of an answer; empty for an error.
        error: the error; for a degraded answer, the scorer's. None: there was no error.
        rounds: `int32[B]`, number of scorer calls that each user took part in; empty for an error.
        items_scored: `int32[B]`, number of candidates that the scorer evaluated per user; empty for an error.
    """

    kind: Kind
    outputs: Tensors
    error: Exception | None
    rounds: npt.NDArray[np.int32]
    items_scored: npt.NDArray[np.int32]

    @classmethod
    def of_error(cls, error: Exception) -> Outcome:
        """The outcome of a request that failed."""
        kind = next(kind for of, kind in _KIND_OF_ERROR if isinstance(error, of))
        return cls(kind, {}, error, np.zeros(0, np.int32), np.zeros(0, np.int32))


HEARTBEAT = Outcome(
    Kind.HEARTBEAT,
    {
        ITEM_IDS: np.zeros((1, 0), ITEM_IDS.dtype),
        SCORES: np.zeros((1, 0), SCORES.dtype),
        ITEMS_SCORED: np.zeros((1, 1), ITEMS_SCORED.dtype),
        ITEMS_MATCHING: np.zeros((1, 1), ITEMS_MATCHING.dtype),
        STATUS: np.zeros((1, 1), STATUS.dtype),
        REQUEST_KEY: np.zeros((1, 1), REQUEST_KEY.dtype),
    },
    None,
    np.zeros(1, np.int32),
    np.zeros(1, np.int32),
)
"""The answer to a heartbeat of `nann serve`: no items, without a search."""
