"""The configurations in a model repository: copies of the hand-written ones, and those made from them.

The input of the scorer's is `candidates`, or `candidate_rows` where the bundle has item rows.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

from nann.durable_files import write_text
from nann.errors import ConfigError
from nann.item_ids import IdKind
from nann.search_requests import SERVED_BOUNDS, SearchBounds
from nann.signature import (
    BEAM_RETRIEVAL,
    BUNDLE_SETTING,
    CANDIDATE_ROWS,
    CANDIDATES,
    CATALOG,
    ENSEMBLE,
    FEATURE_TRANSFORM,
    ID_KIND_SETTING,
    IDENTITY_SETTING,
    ITEM_ID_TENSORS,
    SCORER,
    USER_ENCODER,
    TensorSpec,
)

from ..version_folder import (
    CATALOG_VERSION,
    EMBEDDED,
    STEPS_CONFIGS,
    TEMPLATE,
    TENSORRT,
    TORCH,
    TWO,
)
from ..version_history import VERSIONS_FOLDER, bundle_of, release_path
from .config_text import with_blocks_of, with_instances, with_parameter, without_blocks
from .instances import recorded_instances
from .tensorrt_configs import WARMUP_FOLDER

_TARGETS = (EMBEDDED, "onnxruntime", TORCH, TENSORRT)
_ONE_STEP_FILE = "one_step.pbtxt"
_OF_STEPS = {f"{BEAM_RETRIEVAL.name}/configs/{name}.pbtxt": steps for steps, name in STEPS_CONFIGS.items()}
_SCORER_OF_TWO = f"{SCORER.name}/configs/{STEPS_CONFIGS[TWO]}.pbtxt"
MADE_CONFIGS = frozenset(
    (
        f"{USER_ENCODER.name}/configs/{TENSORRT}.pbtxt",
        f"{SCORER.name}/configs/{TENSORRT}.pbtxt",
        *(
            f"{model.name}/configs/{target}.pbtxt"
            for model in (FEATURE_TRANSFORM, BEAM_RETRIEVAL)
            for target in _TARGETS
        ),
        *_OF_STEPS,
        _SCORER_OF_TWO,
    )
)
"""Configurations that installation makes from the hand-written ones where it has something to change: for targets with
additions, and for text ids. It also makes the ensemble's for each target."""
_COPIED_FILE = "copied.json"
_LATEST = "model_version: -1"
_INT64 = r'(name:\s*"%s"\s*(?:#.*\s*)*data_type:\s*)TYPE_INT64\b'
_NUMBER = re.compile(r'key:\s*"(\w+)"\s*value:\s*\{\s*string_value:\s*"(\d+)"')


def hand_written(repository: Path) -> list[Path]:
    """The configurations in a repository that installation does not make."""
    paths = (path.relative_to(repository) for path in repository.glob("[!.]*/**/*.pbtxt"))
    made_for_ensemble = Path(ENSEMBLE.name) / "configs"
    return sorted(
        repository / path for path in paths if str(path) not in MADE_CONFIGS and path.parent != made_for_ensemble
    )


def copy_template(repository: Path) -> None:
    """Copies the hand-written configurations, and the model `catalog`, to another repository.

    A copy that was changed there stays as it is. Any other copy is updated to the template of a new release.
    """
    record = repository / VERSIONS_FOLDER / _COPIED_FILE
    text = record.read_text(encoding="utf-8") if record.exists() else ""
    copied: dict[str, str] = json.loads(text or "{}")
    # The files of the other models are in their versions.
    catalog = TEMPLATE / CATALOG.name / str(CATALOG_VERSION) / "model.py"
    for source in (*hand_written(TEMPLATE), catalog):
        name = str(source.relative_to(TEMPLATE))
        target, text = repository / name, source.read_text(encoding="utf-8")
        present = target.read_text(encoding="utf-8") if target.exists() else ""  # empty: a crash lost the content
        written = with_candidates(present, CANDIDATES) or present  # which form it is in, no person has changed
        if not present or copied.get(name) == _digest(written):
            if written != text:
                _write(target, text)
            copied[name] = _digest(text)
    _write(record, json.dumps(copied, indent=2) + "\n")


def check_target(repository: Path, target: str) -> None:
    """Checks that user_encoder and scorer have a configuration for this Triton target.

    Raises:
        ConfigError: naming the model and its targets.
    """
    for spec in (USER_ENCODER, SCORER):
        folder = repository / spec.name / "configs"
        if not (folder / f"{target}.pbtxt").exists():
            if target == TENSORRT:
                raise ConfigError(
                    f"no TensorRT plans are installed in {repository}; build them with `nann build-engine` on the "
                    "serving machine, with the TensorRT that serves them, and pass their folder with --plans"
                )
            found = {path.stem for path in folder.glob("*.pbtxt")} - set(STEPS_CONFIGS.values())
            targets = ", ".join(sorted({*found, TENSORRT}))
            raise ConfigError(f"target is {target!r}; {spec.name} has configurations for {targets}")


def search_bounds(repository: Path) -> SearchBounds:
    """The most that a request may ask of the server of this repository, as its configuration says."""
    text = (repository / BEAM_RETRIEVAL.name / "config.pbtxt").read_text(encoding="utf-8")
    found = {name: int(value) for name, value in _NUMBER.findall(text) if name in vars(SERVED_BOUNDS)}
    return replace(SERVED_BOUNDS, **found)


def made_configs(repository: Path, version: int) -> dict[str, str]:
    """The text of each configuration of `MADE_CONFIGS` for this version, by its path in the repository.

    And of the scorer's for each target, with the input of the version's form.

    Raises:
        ConfigError: if the version has item rows, and a configuration of the scorer no such input to replace.
    """
    bundle = bundle_of(repository, version)
    made = {path: (repository / path).read_text(encoding="utf-8") for path in _of_scorer(repository)}
    made[_SCORER_OF_TWO] = (repository / SCORER.name / "configs" / f"{EMBEDDED}.pbtxt").read_text(encoding="utf-8")
    made.update({name: _one_step(repository, bundle.id_kind, steps) for name, steps in _OF_STEPS.items()})
    for name in sorted(MADE_CONFIGS - made.keys()):
        path = repository / name
        folder, target = path.parent.parent, path.stem
        of_release = release_path(repository, version) / TENSORRT
        if target == TENSORRT and not of_release.exists():
            continue
        base = (folder / "config.pbtxt").read_text(encoding="utf-8")
        text = _with_ids(bundle.id_kind, folder / "config.pbtxt", base)
        additions = [folder / "additions" / f"{target}.pbtxt"]
        if target == TENSORRT:
            additions.append(of_release / folder.name / "addition.pbtxt")
        for addition in additions:
            if addition.exists():
                text += "\n" + addition.read_text(encoding="utf-8")
        if text != base or name.startswith(f"{SCORER.name}/"):
            made[name] = text
    _, candidates = bundle.exported_models[SCORER.name].inputs
    for name, text in made.items():
        if name.startswith(f"{SCORER.name}/"):
            changed = with_candidates(text, candidates)
            if changed is None and candidates is CANDIDATE_ROWS:
                raise ConfigError(
                    f"{repository / name} has no input {CANDIDATES.name} to replace, for a bundle with item rows; "
                    f"restore the configurations in {repository / SCORER.name} from {TEMPLATE / SCORER.name}"
                )
            made[name] = changed or text
    return made


def _one_step(repository: Path, kind: IdKind, steps: str) -> str:
    """The configuration of beam_retrieval as the one step of the ensemble; `steps` is ONE or TWO.

    It takes what feature_transform takes, with the same parameters, and returns what the ensemble returns. All else is
    as people have configured beam_retrieval.
    """
    base, features, ensemble = (
        repository / model.name / "config.pbtxt" for model in (BEAM_RETRIEVAL, FEATURE_TRANSFORM, ENSEMBLE)
    )
    text = without_blocks(base.read_text(encoding="utf-8"), "input", "output")
    text = with_blocks_of(text, features.read_text(encoding="utf-8"), "input", "parameters")
    text = with_blocks_of(text, ensemble.read_text(encoding="utf-8"), "output")
    text += "\n" + (base.parent / "additions" / _ONE_STEP_FILE).read_text(encoding="utf-8")
    text = with_parameter(text, SCORER.name, "bls" if steps == TWO else "in_process")
    return _with_ids(kind, base, with_instances(text, recorded_instances(repository)))


def with_candidates(text: str, tensor: TensorSpec) -> str | None:
    """A configuration of the scorer with the input `tensor`, in place of the one that it has; None if it has none."""
    for spec in (CANDIDATES, CANDIDATE_ROWS):
        sizes = ["-1"] * len(spec.shape)  # as a person writes them, or as protobuf does
        dims = r"(\[\s*" + r"\s*,\s*".join(sizes) + r"\s*\]|" + r"\s+dims:\s*".join(sizes) + ")"
        found = re.search(rf'name:\s*"{spec.name}"\s+data_type:\s*{spec.config_dtype}\s+dims:\s*{dims}', text)
        if found and spec is tensor:
            return text
        if found:
            shape = ", ".join(map(str, tensor.shape))
            block = f'name: "{tensor.name}"\n    data_type: {tensor.config_dtype}\n    dims: [ {shape} ]'
            return text[: found.start()] + block + text[found.end() :]
    return None


def _of_scorer(repository: Path) -> list[str]:
    """The scorer's hand-written configurations, one for each target."""
    names = (str(path.relative_to(repository)) for path in repository.glob(f"{SCORER.name}/configs/*.pbtxt"))
    return sorted(name for name in names if name not in MADE_CONFIGS)


def write_made_configs(repository: Path, version: int) -> None:
    """Writes what `made_configs` gives and the warm-up, and removes those of `MADE_CONFIGS` that this version lacks."""
    made = made_configs(repository, version)
    for name in MADE_CONFIGS - made.keys():
        if (repository / name).exists():  # to unlink what is not there fails on a read-only disk
            (repository / name).unlink()
    for name, text in made.items():
        path = repository / name
        _write(path, text)
        if path.stem == TENSORRT:
            _replace_warmup(repository, version, path.parent.parent.name)


def pin_ensemble(repository: Path, version: int) -> None:
    """Makes the ensemble's configuration for each target, with every step pinned to this version.

    So this one file switches all five models together. It names the bundle too, for clients that ask which one answers.

    Raises:
        ConfigError: if the hand-written configuration has no step to pin, or no tensors for the bundle's ids.
    """
    source = repository / ENSEMBLE.name / "config.pbtxt"
    text = source.read_text(encoding="utf-8")
    if _LATEST not in text:
        raise ConfigError(f"{source} has no step with `{_LATEST}`; restore it, since nann sets the versions")
    bundle = bundle_of(repository, version)
    made = f"\n# Made from ../config.pbtxt.\nversion_policy {{ specific {{ versions: [ {version} ] }} }}\n"
    settings = {
        BUNDLE_SETTING: bundle.bundle_id,
        IDENTITY_SETTING: bundle.identity,
        ID_KIND_SETTING: bundle.id_kind.name,
    }
    for setting, value in settings.items():
        made += f'parameters {{ key: "{setting}" value {{ string_value: "{value}" }} }}\n'
    one_step = source.parent / "additions" / _ONE_STEP_FILE
    one_step_text = without_blocks(text, "ensemble_scheduling") + "\n" + one_step.read_text(encoding="utf-8")
    targets = {path.stem for path in (repository / SCORER.name / "configs").glob("*.pbtxt")} | {TENSORRT}
    for target in sorted(targets | set(STEPS_CONFIGS.values())):
        steps = one_step_text if target in STEPS_CONFIGS.values() else text
        pinned = steps.replace(_LATEST, f"model_version: {version}")
        _write(source.parent / "configs" / f"{target}.pbtxt", _with_ids(bundle.id_kind, source, pinned) + made)


def _with_ids(kind: IdKind, path: Path, text: str) -> str:
    """The text of a hand-written configuration, with the tensors of item ids as bundles of this kind have them."""
    for tensor in ITEM_ID_TENSORS:
        wanted = kind.spec(tensor)
        if wanted.dtype == tensor.dtype or f'name: "{tensor.name}"' not in text:
            continue
        text, found = re.subn(_INT64 % tensor.name, rf"\g<1>{wanted.config_dtype}", text)
        if not found:
            raise ConfigError(
                f'{path} has `name: "{tensor.name}"` without `data_type: {tensor.config_dtype}` behind it; restore it, '
                f"since nann sets {wanted.config_dtype} there for this bundle's ids"
            )
    return text


def _replace_warmup(repository: Path, version: int, model: str) -> None:
    folder = repository / model / WARMUP_FOLDER
    made = release_path(repository, version) / TENSORRT / model / WARMUP_FOLDER
    if _contents(folder) == _contents(made):
        return
    shutil.rmtree(folder, ignore_errors=True)
    if made.exists():
        shutil.copytree(made, folder)


def _contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*")}


def _write(path: Path, text: str) -> None:
    """Writes a file only if that changes it: a start must not fail on a full disk on which nothing is to be written."""
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        write_text(path, text, durable=False)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
