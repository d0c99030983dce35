"""The models `user_encoder` and `scorer` of the target `embedded`: onnxruntime inside the Python backend."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nann.bundle import Bundle, verify_file
from nann.signature import BEHAVIORS, CANDIDATES, PROFILE_CODES, SCORER, USER_ENCODER, ModelSpec

from ..engines.onnx_model import OnnxModel
from ..tensors import config_threads, error_response, make_response, read_tensor
from ..version_folder import MODEL_FILES, ONNX_FILE, onnx_files

_WARM_UP_CANDIDATES = 16
_SPECS = {spec.name: spec for spec in (USER_ENCODER, SCORER)}


def load_model(folder: Path, model_name: str, threads: int = 1) -> tuple[ModelSpec, OnnxModel]:
    """Verifies and loads the ONNX model in a version folder.

    Args:
        folder: the version folder, with manifest.json and the ONNX file under Triton's name for it.
        model_name: `user_encoder` or `scorer`.
        threads: as `OnnxModel`.

    Raises:
        BundleError: if a file is missing or changed, or does not fit the signature.
    """
    bundle = Bundle.open(folder, ())
    for name, installed in onnx_files(bundle.manifest, MODEL_FILES[model_name]).items():
        verify_file(folder / installed, bundle.manifest["files"][name])
    spec = _SPECS[model_name]
    model = OnnxModel(folder / ONNX_FILE, spec, threads)
    sizes = {
        BEHAVIORS.name: bundle.sequence_length,
        PROFILE_CODES.name: bundle.profile_width,
        CANDIDATES.name: _WARM_UP_CANDIDATES,
    }
    model.warm_up(sizes)
    return spec, model


def run_together(model: OnnxModel, batches: Sequence[Mapping[str, npt.NDArray]]) -> list[npt.NDArray]:
    """Runs several requests: in one run where their shapes agree but for the batch size, else each by itself.

    Args:
        model: the model.
        batches: inputs of each request, `[B, ...]` by name.

    Returns:
        The output of each request, `[B, ...]`.
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
        """Verifies, loads and warms up the ONNX file in the version folder."""
        folder = Path(args["model_repository"]) / args["model_version"]
        threads = config_threads(json.loads(args["model_config"]), "threads")
        self._spec, self._model = load_model(folder, args["model_name"], threads)

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Runs the requests together; if that fails, they all get the model's message."""
        try:
            batches = [{spec.name: read_tensor(request, spec) for spec in self._spec.inputs} for request in requests]
            outputs = run_together(self._model, batches)
            return [make_response({self._spec.outputs[0]: output}) for output in outputs]
        except Exception as error:  # a Python model must never raise out of execute()
            return [error_response(error) for _ in requests]
