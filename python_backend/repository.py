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
    SCORER_HALF_FILE,
    USER_ENCODER_FILE,
    Bundle,
    search_file_names,
)
from nann.errors import BundleError, ConfigError
from nann.plans import PLANNED_MODELS, Plans, plan_file
from nann.signature import BEAM_RETRIEVAL, FEATURE_TRANSFORM, MODELS, SCORER, USER_ENCODER
from python_backend.triton_config import WARMUP_FOLDER, tensorrt_addition, write_warmup

TEMPLATE = Path(__file__).resolve().parent.parent / "model_repository"
"""The hand-written repository: in a checkout and in an installed wheel it stands beside this package."""
ONNX_FILE = "model.onnx"
"""Triton's name for the ONNX file in a version folder."""
ONNX_HALF_FILE = "model.fp16.onnx"
"""Our name for the scorer in half precision beside it."""
PLAN_FILE = "model.plan"
"""Triton's name for a TensorRT plan in a version folder."""
MODEL_FILES = {USER_ENCODER.name: USER_ENCODER_FILE, SCORER.name: SCORER_FILE}
"""The bundle's name of each model's ONNX file."""
TENSORRT, TORCH = "tensorrt", "torch"
MADE_CONFIGS = frozenset(
    (
        f"{USER_ENCODER.name}/configs/{TENSORRT}.pbtxt",
        f"{BEAM_RETRIEVAL.name}/configs/{TENSORRT}.pbtxt",
        f"{SCORER.name}/configs/{TENSORRT}.pbtxt",
        f"{BEAM_RETRIEVAL.name}/configs/{TORCH}.pbtxt",
    )
)
"""Configurations that installation makes of the hand-written ones."""


def default_repository() -> Path:
    """The template itself in a checkout; where the package is installed, `build/model_repository` under the cwd."""
    in_checkout = (TEMPLATE.parent / "pyproject.toml").exists()
    return TEMPLATE if in_checkout else Path("build") / "model_repository"


def install_bundle(
    bundle: Path | str, repository: Path | str = TEMPLATE, version: int = 1, plans: Path | str | None = None
) -> Bundle:
    """Installs a bundle as one version of all models, for every target.

    Each file is linked (copied across file systems) under a temporary name and renamed, the manifest last, so that a
    server that has an older file open keeps it, and one that starts meanwhile never sees half a file.

    Args:
        bundle: the bundle's folder, verified first.
        repository: a model repository; if it is not the template, the hand-written files are copied there first;
            configurations that are there already (and perhaps changed) stay as they are.
        version: the version folder, at least 1.
        plans: TensorRT plans of the bundle (`nann build-engine`); the target `tensorrt` needs them, no other does.

    Returns:
        The opened bundle.

    Raises:
        BundleError: if the bundle is incomplete or changed, or the plans are not of this bundle.
    """
    if version < 1:
        raise BundleError(f"version is {version}; expected at least 1")
    repository = Path(repository)
    opened = Bundle.open(bundle)
    artefacts = bundle_artefacts(opened.manifest)
    opened_plans = None if plans is None else _servable_plans(Path(plans), opened)
    if repository.resolve() != TEMPLATE:
        copy_template(repository)
    for spec in MODELS:
        folder = repository / spec.name / str(version)
        folder.mkdir(parents=True, exist_ok=True)
        for model_file in (TEMPLATE / spec.name / "1").glob("*.py"):
            if folder.resolve() != model_file.parent:
                _place(model_file, folder / model_file.name, link=False)
        files = {opened.path / name: installed for name, installed in artefacts.get(spec.name, {}).items()}
        if opened_plans is not None and spec in PLANNED_MODELS:
            files[opened_plans.path / plan_file(spec.name)] = PLAN_FILE
        _install_files(folder, files)
    _make_configs(opened, repository, with_plans=opened_plans is not None)
    return opened


def check_target(repository: Path, target: str) -> None:
    """Checks that the models that differ between targets have a configuration for this one.

    Raises:
        ConfigError: naming the model and the targets that it has.
    """
    for spec in (USER_ENCODER, SCORER):
        folder = repository / spec.name / "configs"
        if not (folder / f"{target}.pbtxt").exists():
            if target == TENSORRT:
                raise ConfigError(
                    f"no TensorRT plans are installed in {repository}; build them with `nann build-engine` on the "
                    "machine and with the TensorRT that will serve them, and name their folder with --plans"
                )
            targets = ", ".join(sorted({*(path.stem for path in folder.glob("*.pbtxt")), TENSORRT}))
            raise ConfigError(f"target is {target!r}; {spec.name} has configurations for {targets}")


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
    if SCORER_HALF_FILE in manifest["files"]:
        needed[SCORER.name].update(onnx_files(manifest, SCORER_HALF_FILE))
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
    installed = ONNX_HALF_FILE if onnx_file == SCORER_HALF_FILE else ONNX_FILE
    return {onnx_file: installed, **{name: name for name in external}}


def hand_written(repository: Path) -> list[Path]:
    """The configurations in a repository that installation does not make itself."""
    return sorted(path for path in repository.rglob("*.pbtxt") if str(path.relative_to(repository)) not in MADE_CONFIGS)


def copy_template(repository: Path) -> None:
    """Copies the hand-written configurations to another repository; those that are there already stay as they are."""
    for source in hand_written(TEMPLATE):
        target = repository / source.relative_to(TEMPLATE)
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            _place(source, target, link=False)


def _servable_plans(path: Path, bundle: Bundle) -> Plans:
    plans = Plans.open(path, bundle)
    library = plans.manifest["library"]
    if library != TENSORRT:
        raise BundleError(
            f"the plans in {path} were built with {library}, which Triton does not load; build them with TensorRT, in "
            "the image that serves them (docs/deploy.md)"
        )
    return plans


def _make_configs(bundle: Bundle, repository: Path, *, with_plans: bool) -> None:
    """Makes the configurations of `MADE_CONFIGS`; those of `tensorrt` go where there are no plans."""
    for name in MADE_CONFIGS:
        made = repository / name
        folder, target = made.parent.parent, made.stem
        if target == TENSORRT and not with_plans:
            made.unlink(missing_ok=True)
            continue
        text = (folder / "config.pbtxt").read_text(encoding="utf-8")
        addition = folder / "additions" / f"{target}.pbtxt"
        if addition.exists():
            text += "\n" + addition.read_text(encoding="utf-8")
        for spec in PLANNED_MODELS:
            if spec.name == folder.name and target == TENSORRT:
                text += tensorrt_addition(bundle, spec)
                write_warmup(bundle, spec, folder / WARMUP_FOLDER)
        made.parent.mkdir(exist_ok=True)
        made.write_text(text, encoding="utf-8")


def _install_files(folder: Path, files: Mapping[Path, str]) -> None:
    for source, installed in files.items():
        _place(source, folder / installed, link=True)
    # What an earlier bundle left behind (a graph of more layers) would only mislead.
    for path in folder.iterdir():
        if path.is_file() and path.name not in files.values() and path.suffix != ".py":
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
