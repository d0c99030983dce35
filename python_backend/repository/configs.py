"""The configurations in a model repository: copies of the hand-written ones, and those made from them.

The scorer's name one input by the form of the bundle: `candidates`, or `candidate_rows` for a bundle with item rows.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

from nann.bundle import Bundle
from nann.durable_files import write_text
from nann.errors import ConfigError
from nann.search_requests import SERVED_BOUNDS, SearchBounds
from nann.signature import (
    BEAM_RETRIEVAL,
    BUNDLE_SETTING,
    CANDIDATE_ROWS,
    CANDIDATES,
    ENSEMBLE,
    SCORER,
    USER_ENCODER,
    TensorSpec,
)

from ..version_folder import TEMPLATE, TENSORRT, TORCH
from .tensorrt_configs import WARMUP_FOLDER
from .versions import VERSIONS_FOLDER, release_path

MADE_CONFIGS = frozenset(
    (
        f"{USER_ENCODER.name}/configs/{TENSORRT}.pbtxt",
        f"{BEAM_RETRIEVAL.name}/configs/{TENSORRT}.pbtxt",
        f"{SCORER.name}/configs/{TENSORRT}.pbtxt",
        f"{BEAM_RETRIEVAL.name}/configs/{TORCH}.pbtxt",
    )
)
"""Configurations that installation makes from the hand-written ones. It also makes the ensemble's for each target."""
_COPIED_FILE = "copied.json"
_LATEST = "model_version: -1"
_NUMBER = re.compile(r'key:\s*"(\w+)"\s*value:\s*\{\s*string_value:\s*"(\d+)"')


def hand_written(repository: Path) -> list[Path]:
    """The configurations in a repository that installation does not make."""
    paths = (path.relative_to(repository) for path in repository.glob("[!.]*/**/*.pbtxt"))
    made_for_ensemble = Path(ENSEMBLE.name) / "configs"
    return sorted(
        repository / path for path in paths if str(path) not in MADE_CONFIGS and path.parent != made_for_ensemble
    )


def copy_template(repository: Path) -> None:
    """Copies the hand-written configurations to another repository.

    A copy that was changed there stays as it is. Any other copy is updated to the template of a new release.
    """
    record = repository / VERSIONS_FOLDER / _COPIED_FILE
    text = record.read_text(encoding="utf-8") if record.exists() else ""
    copied: dict[str, str] = json.loads(text or "{}")
    for source in hand_written(TEMPLATE):
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
            targets = ", ".join(sorted({*(path.stem for path in folder.glob("*.pbtxt")), TENSORRT}))
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
    made = {path: (repository / path).read_text(encoding="utf-8") for path in _of_scorer(repository)}
    for name in sorted(MADE_CONFIGS):
        path = repository / name
        folder, target = path.parent.parent, path.stem
        of_release = release_path(repository, version) / TENSORRT
        if target == TENSORRT and not of_release.exists():
            continue
        text = (folder / "config.pbtxt").read_text(encoding="utf-8")
        additions = [folder / "additions" / f"{target}.pbtxt"]
        if target == TENSORRT:
            additions.append(of_release / folder.name / "addition.pbtxt")
        for addition in additions:
            if addition.exists():
                text += "\n" + addition.read_text(encoding="utf-8")
        made[name] = text
    bundle = Bundle.open(release_path(repository, version) / BEAM_RETRIEVAL.name, ())
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
    """Writes what `made_configs` gives and the warm-up; without plans it removes those of `tensorrt`."""
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
        ConfigError: if the hand-written configuration has no step to pin.
    """
    source = repository / ENSEMBLE.name / "config.pbtxt"
    text = source.read_text(encoding="utf-8")
    if _LATEST not in text:
        raise ConfigError(f"{source} has no step with `{_LATEST}`; restore it, since nann sets the versions")
    pinned = text.replace(_LATEST, f"model_version: {version}")
    pinned += f"\n# Made from ../config.pbtxt.\nversion_policy {{ specific {{ versions: [ {version} ] }} }}\n"
    bundle_id = Bundle.open(release_path(repository, version) / BEAM_RETRIEVAL.name, ()).bundle_id
    pinned += f'parameters {{ key: "{BUNDLE_SETTING}" value {{ string_value: "{bundle_id}" }} }}\n'
    targets = {path.stem for path in (repository / SCORER.name / "configs").glob("*.pbtxt")} | {TENSORRT}
    for target in sorted(targets):
        _write(source.parent / "configs" / f"{target}.pbtxt", pinned)


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
