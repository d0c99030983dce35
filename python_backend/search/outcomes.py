"""What became of one request: the one object that beam_retrieval answers from, and that metrics and traces read.

Knows nothing of Triton, as `retrieval` does not.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nann.errors import DeadlineExceeded, RequestCancelled, RequestError
from nann.signature import Tensors


class Kind(str, enum.Enum):
    """How a request ended; the value is its name in metrics and logs."""

    COMPLETE = "complete"
    PARTIAL = "partial"
    DEGRADED = "degraded"
    REFUSED = "refused"
    LATE = "late"
    CANCELLED = "cancelled"
    FAILED = "failed"


_KIND_OF_ERROR = (
    (RequestError, Kind.REFUSED),
    (DeadlineExceeded, Kind.LATE),
    (RequestCancelled, Kind.CANCELLED),
    (Exception, Kind.FAILED),
)


@dataclass(frozen=True, eq=False)
class Outcome:
    """How one request ended.

    Attributes:
        kind: of answer, or of error.
        outputs: the tensors of an answer; empty with an error.
        error: what went wrong; with a degraded answer, what the scorer said. None: nothing.
        rounds: `int32[B]`, in how many scorer calls each user took part; empty with an error.
        items_scored: `int32[B]`, how many candidates the scorer evaluated for each user; empty with an error.
    """

    kind: Kind
    outputs: Tensors
    error: Exception | None
    rounds: npt.NDArray[np.int32]
    items_scored: npt.NDArray[np.int32]

    @classmethod
    def of_error(cls, error: Exception) -> Outcome:
        """A request that got no answer."""
        kind = next(kind for of, kind in _KIND_OF_ERROR if isinstance(error, of))
        return cls(kind, {}, error, np.zeros(0, np.int32), np.zeros(0, np.int32))
