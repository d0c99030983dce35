"""The files of a bundle that each model needs, and their names in its version folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nann.bundle import (
    SCORER_FILE,
    SCORER_HALF_FILE,
    USER_ENCODER_FILE,
    feature_file_names,
    search_file_names,
)
from nann.errors import BundleError
from nann.manifest import MANIFEST_FILE
from nann.native_scorer import NATIVE_SCORER_FILE
from nann.scorer_check import SCORER_CHECK_FILE
from nann.signature import BEAM_RETRIEVAL, FEATURE_TRANSFORM, SCORER, USER_ENCODER

TEMPLATE = Path(__file__).resolve().parent.parent / "model_repository"
"""The hand-written repository. It is beside this package, in a checkout and in an installed wheel."""
ONNX_FILE = "model.onnx"
"""Triton's name for the ONNX file in a version folder."""
ONNX_HALF_FILE = "model.fp16.onnx"
"""Our name for the scorer in half precision, in the same folder."""
PLAN_FILE = "model.plan"
"""Triton's name for a TensorRT plan in a version folder."""
MODEL_FILES = {USER_ENCODER.name: USER_ENCODER_FILE, SCORER.name: SCORER_FILE}
"""Name of each model's ONNX file in the bundle."""
CATALOG_VERSION = 1
"""The only version of the model `catalog`."""
TENSORRT, TORCH = "tensorrt", "torch"
"""Triton targets whose configurations are made at installation."""
EMBEDDED = "embedded"
"""The target of onnxruntime on the CPU inside the Python backend."""
SEPARATE, ONE, TWO = "separate", "one", "two"
"""How a request is divided among models: one for each step; one for all; one for all but the scorer, which it calls."""
STEPS = (ONE, TWO, SEPARATE)
STEPS_CONFIGS = {ONE: "one_step", TWO: "two_steps"}
"""Names of the configurations, instead of the target's, with which Triton reads a repository in these forms."""


def bundle_artefacts(manifest: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """Which files each model needs: model -> name in the bundle -> name in the version folder, the manifest last.

    Raises:
        BundleError: if the bundle has no ONNX files yet.
    """
    needed = {
        FEATURE_TRANSFORM.name: {name: name for name in feature_file_names(manifest)},
        USER_ENCODER.name: onnx_files(manifest, USER_ENCODER_FILE),
        BEAM_RETRIEVAL.name: {name: name for name in search_file_names(manifest)},
        SCORER.name: onnx_files(manifest, SCORER_FILE),
    }
    if SCORER_HALF_FILE in manifest["files"]:
        needed[SCORER.name].update(onnx_files(manifest, SCORER_HALF_FILE))
    needed[SCORER.name].update(engine_files(manifest))
    for names in needed.values():
        for name in names:
            if name not in manifest["files"]:
                raise BundleError(f"the bundle has no {name}; run `nann index` and `nann export` to complete it")
        names[MANIFEST_FILE] = MANIFEST_FILE
    return needed


def onnx_files(manifest: Mapping[str, Any], onnx_file: str) -> dict[str, str]:
    """Name in the bundle -> name in the version folder, of one ONNX file and its external data.

    External data keeps its name, since the ONNX file refers to it by that name.
    """
    external = (name for name in manifest["files"] if name.startswith(f"{onnx_file}."))
    installed = ONNX_HALF_FILE if onnx_file == SCORER_HALF_FILE else ONNX_FILE
    return {onnx_file: installed, **{name: name for name in external}}


def engine_files(manifest: Mapping[str, Any]) -> dict[str, str]:
    """The same, of what engines other than onnxruntime need of the scorer."""
    return {name: name for name in (NATIVE_SCORER_FILE, SCORER_CHECK_FILE) if name in manifest["files"]}


def check_same_bundle(model_folder: Path, version: int, others: Sequence[str] = (SCORER.name,)) -> None:
    """Checks by their manifests that the graph and the other models of a version come from the same bundle.

    A version folder never changes once it is written. After this check, a call only has to name the version.
    `model_folder` is the folder of beam_retrieval in the model repository.

    Raises:
        BundleError: if the bundles differ, or another model has no such version.
    """
    own = model_folder / str(version) / MANIFEST_FILE
    for name in others:
        other = model_folder.parent / name / str(version) / MANIFEST_FILE
        if not other.is_file():
            raise BundleError(f"{other} is missing; install the bundle again as a new version")
        if own.read_bytes() != other.read_bytes():
            raise BundleError(f"{own} and {other} are from different bundles; install each bundle as its own version")
