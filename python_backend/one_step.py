"""The steps before a search in the process of beam_retrieval, for `nann serve --steps one` and `two`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nann.scorer import Float32Array
from nann.signature import FEATURE_TRANSFORM, USER_ENCODER

from .engines.onnx_version import load_model
from .request_features import RequestFeatures, UserFeatures
from .watch.publisher import MetricsPublisher


class OneStep:
    """What feature_transform and user_encoder do, in the process of beam_retrieval.

    Args:
        args: Triton's argument of `initialize`.
        publisher: of the metrics.

    Raises:
        BundleError: if a file of these models' versions is missing or changed.
    """

    def __init__(self, args: Mapping[str, str], publisher: MetricsPublisher) -> None:
        repository, version = Path(args["model_repository"]).parent, args["model_version"]
        self._features = RequestFeatures(args, repository / FEATURE_TRANSFORM.name / version, publisher)
        spec, self._encoder = load_model(repository / USER_ENCODER.name / version, USER_ENCODER.name)
        self._inputs = spec.inputs

    def read(self, requests: Sequence[Any]) -> list[tuple[UserFeatures, Float32Array] | Exception]:
        """The features and the user states, `float32[B, S]`, of each request; an error: only this request has failed.

        The user encoder runs once for all of them.
        """
        read = self._features.of_batch(requests)
        valid = [one for one in read if isinstance(one, UserFeatures)]
        try:
            states = iter(self._encoded(valid) if valid else ())
        except Exception as error:  # as in the model user_encoder: all that were in the run have failed
            return [error if isinstance(one, UserFeatures) else one for one in read]
        return [(one, next(states)) if isinstance(one, UserFeatures) else one for one in read]

    def close(self) -> None:
        """Leaves the store of histories."""
        self._features.close()

    def _encoded(self, features: Sequence[UserFeatures]) -> list[Float32Array]:
        parts = [[one.tensors[spec] for one in features] for spec in self._inputs]
        joined = [part[0] if len(part) == 1 else np.concatenate(part) for part in parts]
        states = self._encoder.run({spec.name: array for spec, array in zip(self._inputs, joined, strict=True)})
        return np.split(states, np.cumsum([len(part) for part in parts[0]])[:-1])
