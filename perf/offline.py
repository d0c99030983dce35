"""Test users of a bundle and its scorer in this process, for what is compared without a server."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from nann.bundle import SCORER_FILE, USER_ENCODER_FILE, Bundle
from nann.scorer import Float32Array, Scorer
from training.data.prepared import PreparedData, Queries
from training.evaluate import encode_queries
from training.scorers import OnnxScorer, OnnxUserEncoder


@dataclass(frozen=True)
class OfflineUsers:
    """U test users.

    Attributes:
        bundle: exported.
        scorer: its scorer in onnxruntime, one thread.
        queries: behaviours and targets.
        states: `float32[U, S]`.
    """

    bundle: Bundle
    scorer: Scorer
    queries: Queries
    states: Float32Array

    @classmethod
    def load(cls, bundle: Path, data: Path, users: int) -> OfflineUsers:
        """Opens the bundle, unverified, and encodes that many test users of its data set."""
        opened = Bundle.open(bundle, ())
        queries = PreparedData.load(data).queries("test", opened.sequence_length, users)
        states = encode_queries(OnnxUserEncoder(bundle / USER_ENCODER_FILE, 1), opened, queries)
        return cls(opened, OnnxScorer(bundle / SCORER_FILE, 1), queries, states)
