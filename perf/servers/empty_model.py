"""Any of our models without its work: it reads its inputs, makes its calls, and answers zeros of the usual shapes.

A request to a server of these models takes the time that Triton itself needs for the steps, calls and tensors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from nann.signature import CANDIDATE_SCORES, CANDIDATES, MODELS, SCORER, USER_STATE

from ...python_backend.tensors import call_model, make_response, make_tensor, read_optional_tensor


class EmptyModel:
    """A model for requests of one user each.

    Attributes:
        columns: width of outputs by name, where it is not 1; `candidate_scores` is as wide as the candidates.
        calls: number of candidates in each call of the model `scorer`.
    """

    columns: Mapping[str, int] = {}
    calls: Sequence[int] = ()

    def initialize(self, args: Mapping[str, str]) -> None:
        """Takes inputs and outputs from the model's name."""
        (spec,) = (spec for spec in MODELS if spec.name == args["model_name"])
        self._inputs = spec.inputs
        self._outputs = {
            tensor: np.zeros((1, self.columns.get(tensor.name, 1)), tensor.dtype)
            for tensor in spec.outputs
            if tensor is not CANDIDATE_SCORES
        }
        self._candidates = [np.zeros((1, width), np.int32) for width in self.calls]
        self._version = int(args["model_version"])

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Answers the requests one by one."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:
        tensors = ((tensor, read_optional_tensor(request, tensor)) for tensor in self._inputs)
        read = {tensor: array for tensor, array in tensors if array is not None}
        for candidates in self._candidates:
            inputs = [make_tensor(USER_STATE, read[USER_STATE]), make_tensor(CANDIDATES, candidates)]
            call_model(SCORER.name, self._version, inputs, CANDIDATE_SCORES)
        if self._outputs:
            return make_response(self._outputs)
        return make_response({CANDIDATE_SCORES: np.zeros(read[CANDIDATES].shape, np.float32)})
