"""The model `feature_transform`: turns the ids in a request into the inputs of the user encoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nann.signature import BEHAVIORS, ORIGIN

from ..request_features import RequestFeatures, UserFeatures
from ..tensors import error_response, make_response
from ..watch.publisher import MetricsPublisher


class TritonPythonModel:
    """Triton's view of the feature transform."""

    def initialize(self, args: Mapping[str, str]) -> None:
        """Opens and verifies the bundle's files in the version folder."""
        self._publisher = MetricsPublisher(args)
        folder = Path(args["model_repository"]) / args["model_version"]
        self._features = RequestFeatures(args, folder, self._publisher)

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Answers each request; an invalid one fails alone."""
        return [_response(one) for one in self._features.of_batch(requests)]

    def finalize(self) -> None:
        """Leaves the store, and reports the remaining metrics."""
        self._features.close()
        self._publisher.close()


def _response(features: UserFeatures | Exception) -> Any:
    if isinstance(features, Exception):
        return error_response(features)
    users = len(features.tensors[BEHAVIORS])
    return make_response({**features.tensors, ORIGIN: features.origin.pack(users)})
