"""A deep model's own lists, without a graph: every item scored, by the scorer or by its light head alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from nann.bundle import Bundle
from nann.errors import DataError
from nann.scorer import Float32Array, Int32Array, Scorer
from nann.search_input import UserBatch

from ..baselines.baseline import rank_by_scores
from ..checkpoint import Checkpoint
from ..data.prepared import PreparedData
from ..excluded import Excluded
from ..export.onnx_export import require_exported
from ..export.serving_modules import light_vectors, serving_modules
from ..scorers import OnnxScorer, TorchScorer, encode_users_torch
from .evaluate import check_same_items
from .measured_users import bundle_users, exact_top


@dataclass(frozen=True)
class ModelLists:
    """A trained model as it is served, and what it lists for some users.

    Attributes:
        sequence_length: how many behaviours of a user it reads.
        encode: computes the users' states.
        scorer: its scorer.
        item_count: N.
        light_vectors: `float32[N, d]`; None without a light head.
    """

    sequence_length: int
    encode: Callable[[], UserBatch]
    scorer: Scorer
    item_count: int
    light_vectors: Float32Array | None

    @classmethod
    def of_bundle(cls, bundle: Bundle, data: PreparedData, split: str, users: int | None) -> ModelLists:
        """The exported model of a bundle, for the first `users` of a split (None: all).

        Raises:
            DataError: if bundle and data set do not number the same items.
            BundleError: if the bundle was not exported.
        """
        require_exported(bundle)
        check_same_items(bundle, data)
        if bundle.features.behavior_ids is not None:
            raise DataError(
                f"the items of {bundle.path} changed after the training, and baselines know those of the data set; "
                "compare the bundle that `nann refresh` was given"
            )
        return cls(
            bundle.sequence_length,
            lambda: bundle_users(bundle, data, split, users)[1],
            OnnxScorer.of_bundle(bundle),
            data.item_count,
            bundle.light_vectors,
        )

    @classmethod
    def of_checkpoint(cls, checkpoint: Checkpoint, data: PreparedData, split: str, users: int | None) -> ModelLists:
        """The model of a checkpoint, in torch, for the first `users` of a split (None: all).

        Raises:
            ConfigError, DataError: if checkpoint and data do not belong together.
        """
        model = checkpoint.restore(data)
        encoder, scorer = serving_modules(model)
        light = light_vectors(model)
        length = checkpoint.config.model.sequence_length

        def encode() -> UserBatch:
            queries = data.queries(split, length, users)
            return UserBatch(encode_users_torch(encoder, queries.behaviors, queries.profiles), queries.behaviors)

        return cls(
            length,
            encode,
            TorchScorer(scorer),
            data.item_count,
            None if light is None else light.numpy(),
        )

    def exact(self, top_k: int) -> Int32Array:
        """The best items of each user by the scorer: `int32[U, top_k]`, best first."""
        users = self.encode()
        return exact_top(self.scorer, users, self.item_count, top_k, Excluded.none(len(users)))

    def light(self, top_k: int) -> Int32Array:
        """The best items of each user by the light head alone: `int32[U, top_k]`, best first."""
        items = self.light_vectors
        assert items is not None
        users = self.encode().states[:, -items.shape[1] :]
        return rank_by_scores(lambda block: users[block] @ items.T, len(users), len(items), top_k)
