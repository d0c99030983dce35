"""The models `user_encoder` and `scorer` of the target `embedded`: an engine inside the Python backend."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from nann.signature import SCORER

from ..engines.choose import open_scorer
from ..engines.onnx_version import load_model
from ..engines.recorded import AUTO, ENGINES, recorded_engine
from ..settings import config_choice, config_threads
from ..tensors import check_not_empty, error_response, log_info, make_response, read_tensor


class Engine(Protocol):
    """What both models are run by."""

    def run(self, inputs: Mapping[str, npt.NDArray[Any]]) -> npt.NDArray[Any]:
        """`OnnxModel.run`."""


def run_together(model: Engine, batches: Sequence[Mapping[str, npt.NDArray[Any]]]) -> list[npt.NDArray[Any]]:
    """Runs several requests: in one run if their shapes agree except for the batch size, otherwise one by one.

    `batches` holds the inputs of each request by name, `[B, ...]`. Returns the output of each request, `[B, ...]`.
    """
    shapes = {tuple(array.shape[1:] for array in batch.values()) for batch in batches}
    if len(batches) == 1 or len(shapes) > 1:
        return [model.run(batch) for batch in batches]
    output = model.run({name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]})
    ends = np.cumsum([next(iter(batch.values())).shape[0] for batch in batches])
    return np.split(output, ends[:-1])


class TritonPythonModel:
    """Triton's view of one ONNX model."""

    def initialize(self, args: Mapping[str, str]) -> None:
        """Verifies and loads the model in the version folder."""
        model_folder, config = Path(args["model_repository"]), json.loads(args["model_config"])
        folder, threads = model_folder / args["model_version"], config_threads(config, "threads")
        self._model: Engine
        if args["model_name"] != SCORER.name:
            self._spec, self._model = load_model(folder, args["model_name"], threads)
            return
        engine = recorded_engine(model_folder.parent) or config_choice(config, "engine", ENGINES, AUTO)
        self._spec, chosen = open_scorer(folder, engine, threads)
        self._model = chosen.engine
        log_info(str(chosen))

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Runs the requests together; if that fails, each of them gets the error."""
        try:
            batches = [{spec.name: read_tensor(request, spec) for spec in self._spec.inputs} for request in requests]
            for batch in batches:
                for spec in self._spec.inputs:
                    check_not_empty(spec, batch[spec.name].shape)
            outputs = run_together(self._model, batches)
            return [make_response({self._spec.outputs[0]: output}) for output in outputs]
        except Exception as error:  # a Python model must never raise out of execute()
            return [error_response(error) for _ in requests]
