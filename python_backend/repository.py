"""Puts a bundle's artefacts beside the hand-written files of the model repository."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nann.bundle import (
    ITEM_IDS_FILE,
    MANIFEST_FILE,
    SCORER_FILE,
    USER_ENCODER_FILE,
    Bundle,
    search_file_names,
)
from nann.errors import BundleError, ConfigError
from nann.signature import BEAM_RETRIEVAL, FEATURE_TRANSFORM, MODELS, SCORER, USER_ENCODER

TEMPLATE = Path(__file__).resolve().parent.parent / "model_repository"
"""The hand-written repository: in a checkout and in an installed wheel it stands beside this package."""
ONNX_FILE = "model.onnx"
"""Triton's name for the ONNX file in a version folder."""
_MODEL_FILE = "model.py"


def default_repository() -> Path:
    """The template itself in a checkout; where the package is installed, `build/model_repository` under the cwd."""
    in_checkout = (TEMPLATE.parent / "pyproject.toml").exists()
    return TEMPLATE if in_checkout else Path("build") / "model_repository"


def install_bundle(bundle: Path | str, repository: Path | str = TEMPLATE, version: int = 1) -> Bundle:
    """Installs a bundle as one version of all models.

    Each file is linked (copied across file systems) under a temporary name and renamed, the manifest last, so that a
    server that has an older file open keeps it, and one that starts meanwhile never sees half a file.

    Args:
        bundle: the bundle's folder, verified first.
        repository: a model repository; if it is not the template, the hand-written files are copied there first;
            configurations that are there already (and perhaps changed) stay as they are.
        version: the version folder, at least 1.

    Returns:
        The opened bundle.

    Raises:
        BundleError: if the bundle is incomplete or changed.
    """
    if version < 1:
        raise BundleError(f"version is {version}; expected at least 1")
    repository = Path(repository)
    opened = Bundle.open(bundle)
    artefacts = bundle_artefacts(opened.manifest)
    if repository.resolve() != TEMPLATE:
        copy_template(repository)
    for spec in MODELS:
        folder = repository / spec.name / str(version)
        folder.mkdir(parents=True, exist_ok=True)
        model_file = TEMPLATE / spec.name / "1" / _MODEL_FILE
        if model_file.exists() and folder.resolve() != model_file.parent:
            _place(model_file, folder / _MODEL_FILE, link=False)
        _install_files(opened.path, folder, artefacts.get(spec.name, {}))
    return opened


def check_target(repository: Path, target: str) -> None:
    """Checks that every model has a configuration for a target.

    Raises:
        ConfigError: naming the model and the targets that it has.
    """
    for spec in MODELS:
        folder = repository / spec.name
        if not (folder / "configs" / f"{target}.pbtxt").exists() and not (folder / "config.pbtxt").exists():
            targets = sorted(path.stem for path in folder.glob("configs/*.pbtxt"))
            raise ConfigError(
                f"target is {target!r}; {spec.name} has configurations for {', '.join(targets) or 'none'}"
            )


def bundle_artefacts(manifest: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """Which files each model needs: model -> name in the bundle -> name in the version folder, the manifest last.

    Raises:
        BundleError: if the bundle has no ONNX files yet.
    """
    needed = {
        FEATURE_TRANSFORM.name: {ITEM_IDS_FILE: ITEM_IDS_FILE},
        USER_ENCODER.name: onnx_files(manifest, USER_ENCODER_FILE),
        BEAM_RETRIEVAL.name: {name: name for name in search_file_names(manifest)},
        SCORER.name: onnx_files(manifest, SCORER_FILE),
    }
    for names in needed.values():
        for name in names:
            if name not in manifest["files"]:
                raise BundleError(f"the bundle has no {name}; run `nann index` and `nann export` to complete it")
        names[MANIFEST_FILE] = MANIFEST_FILE
    return needed


def onnx_files(manifest: Mapping[str, Any], onnx_file: str) -> dict[str, str]:
    """Name in the bundle -> name in the version folder, of one ONNX file and its external data.

    External data keeps its name, by which the ONNX file refers to it.
    """
    external = (name for name in manifest["files"] if name.startswith(f"{onnx_file}."))
    return {onnx_file: ONNX_FILE, **{name: name for name in external}}


def copy_template(repository: Path) -> None:
    """Copies the hand-written configurations to another repository; those that are there already stay as they are."""
    for spec in MODELS:
        model = TEMPLATE / spec.name
        for source in (*model.glob("config.pbtxt"), *model.glob("configs/*.pbtxt")):
            target = repository / source.relative_to(TEMPLATE)
            if not target.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                _place(source, target, link=False)


def _install_files(bundle: Path, folder: Path, names: Mapping[str, str]) -> None:
    for name, installed in names.items():
        _place(bundle / name, folder / installed, link=True)
    # What an earlier bundle left behind (a graph of more layers) would only mislead.
    for path in folder.iterdir():
        if path.is_file() and path.name not in {*names.values(), _MODEL_FILE}:
            path.unlink()


def _place(source: Path, target: Path, *, link: bool) -> None:
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    temporary.unlink(missing_ok=True)
    if not (link and _linked(source.resolve(), temporary)):
        shutil.copyfile(source, temporary)
    # rename() does nothing when both names are links to the same file already; the temporary name must still go.
    os.replace(temporary, target)
    temporary.unlink(missing_ok=True)


def _linked(source: Path, target: Path) -> bool:
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        return False
    return True
