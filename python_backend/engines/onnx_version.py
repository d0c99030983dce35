"""Loads the ONNX model of a version folder, verified and warmed up."""

from __future__ import annotations

from pathlib import Path

from nann.bundle import Bundle
from nann.manifest import verify_file
from nann.signature import BEHAVIORS, CANDIDATE_ROWS, CANDIDATES, PROFILE_CODES, ModelSpec

from ..version_folder import MODEL_FILES, ONNX_FILE, onnx_files
from .onnx_model import OnnxModel

_WARM_UP_CANDIDATES = 16


def load_model(folder: Path, model_name: str, threads: int = 1) -> tuple[ModelSpec, OnnxModel]:
    """Verifies and loads the ONNX model `user_encoder` or `scorer` in a version folder; threads as for `OnnxModel`.

    Raises:
        BundleError: if a file is missing or changed, or the model does not fit the signature.
    """
    bundle = Bundle.open(folder, ())
    for name, installed in onnx_files(bundle.manifest, MODEL_FILES[model_name]).items():
        verify_file(folder / installed, bundle.manifest["files"][name])
    spec = bundle.exported_models[model_name]
    model = OnnxModel(folder / ONNX_FILE, spec, threads)
    sizes = {
        BEHAVIORS.name: (bundle.sequence_length,),
        PROFILE_CODES.name: (bundle.profile_width,),
        CANDIDATES.name: (_WARM_UP_CANDIDATES,),
        CANDIDATE_ROWS.name: (_WARM_UP_CANDIDATES, bundle.item_row_width),
    }
    model.warm_up(sizes)
    return spec, model
