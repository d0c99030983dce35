"""The versions of a model repository: their folders, which ones Triton sees, and which one is current.

    .versions/N/MODEL/          all files of version N, written once and never changed
    .versions/N/tensorrt/       what its padding grid adds to the configurations of that target
    .versions/versions.json     the history of current versions (the last one is current) and their identities
    MODEL/N -> ../.versions/N/MODEL      a version that Triton sees
    nann/configs/TARGET.pbtxt            the ensemble, every step pinned to the current version

A folder with a temporary name, or one that never became current, is left from a crash: `recover` removes it.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import py_compile
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from nann.bundle import Bundle
from nann.bundle_notes import NOTES_FILE
from nann.durable_files import link_or_copy, new_folder
from nann.errors import ConfigError, DeployError
from nann.plans import PLANS_FILE, Plans, plan_file
from nann.signature import BEAM_RETRIEVAL, MODELS

from ..version_folder import PLAN_FILE, TEMPLATE, TENSORRT, bundle_artefacts
from ..version_history import VERSIONS_FOLDER, Versions, release_path, versions_folder
from .tensorrt_configs import WARMUP_FOLDER, tensorrt_addition, write_warmup

DEFAULT_KEPT_VERSIONS = 3
"""How many versions stay on disk, the current one among them."""


def identity_of(bundle: Bundle, plans: Plans | None = None) -> str:
    """Hash of everything that decides a version's answers: the bundle's identity, and the plans' manifest."""
    digest = hashlib.sha256(bundle.identity.encode())
    if plans is not None:
        digest.update((plans.path / PLANS_FILE).read_bytes())
    return digest.hexdigest()[:16]


@contextlib.contextmanager
def locked(repository: Path) -> Iterator[None]:
    """Lets one process at a time change the versions of a repository; a crash frees the lock.

    Raises:
        DeployError: if another process holds the lock.
    """
    store = versions_folder(repository)
    store.mkdir(parents=True, exist_ok=True)
    lock = store / ".lock"
    # A start on a read-only disk has nothing to write.
    mode = "a" if os.access(lock, os.W_OK) or not lock.exists() else "r"
    with lock.open(mode) as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise DeployError(f"another command is changing the versions in {repository}; wait for it") from error
        yield


@contextlib.contextmanager
def models_locked(repository: Path) -> Iterator[None]:
    """Waits until no other process makes the server load or unload models of a repository, and keeps others waiting.

    A deploy and the supervisor that restarts processes would otherwise load the same model at the same time.
    """
    with (versions_folder(repository) / ".models").open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def write_release(bundle: Bundle, repository: Path, version: int, plans: Plans | None = None) -> None:
    """Writes the files of a version for every target to disk: all of them or none. Nothing else changes.

    The number `version` must have no folder yet.

    Raises:
        BundleError: if the bundle lacks files.
        DeployError: if the version can't be written, such as on a full disk.
    """
    artefacts = bundle_artefacts(bundle.manifest)
    if (bundle.path / NOTES_FILE).is_file():
        artefacts[BEAM_RETRIEVAL.name][NOTES_FILE] = NOTES_FILE
    try:
        with new_folder(release_path(repository, version)) as release:
            for spec in MODELS:
                folder = release / spec.name
                folder.mkdir()
                _copy_model_files(spec.name, folder)
                for name, installed in artefacts.get(spec.name, {}).items():
                    link_or_copy(bundle.path / name, folder / installed)
                planned = None if plans is None else bundle.exported_models.get(spec.name)
                if plans is not None and planned is not None:
                    link_or_copy(plans.path / plan_file(spec.name), folder / PLAN_FILE)
                    made = release / TENSORRT / spec.name
                    made.mkdir(parents=True)
                    (made / "addition.pbtxt").write_text(tensorrt_addition(bundle, planned), encoding="utf-8")
                    write_warmup(bundle, planned, made / WARMUP_FOLDER)
    except OSError as error:
        raise DeployError(
            f"version {version} can't be written to {repository}: {error.strerror}; nothing was changed"
        ) from error


def live_versions(repository: Path) -> set[int]:
    """The versions that Triton sees.

    Raises:
        ConfigError: if there is a version folder that this release did not install.
    """
    live = set()
    for spec in MODELS:
        for path in (repository / spec.name).glob("[0-9]*"):
            if not path.is_symlink():
                raise ConfigError(f"{path} was not installed by this release of nann; remove it, or use another folder")
            live.add(int(path.name))
    return live


def set_live(repository: Path, versions: Iterable[int], models: Iterable[str] = ()) -> None:
    """Makes exactly these versions of these models, or of all models, visible to Triton."""
    wanted = {str(version) for version in versions}
    for name in models or [spec.name for spec in MODELS]:
        folder = repository / name
        present = {path.name for path in folder.glob("[0-9]*")}
        for version in present - wanted:
            (folder / version).unlink()
        for version in wanted - present:
            (folder / version).symlink_to(Path("..") / VERSIONS_FOLDER / version / name, target_is_directory=True)


def recover(repository: Path) -> Versions:
    """Leaves only the current version visible, and removes what is left from a crash. Returns the versions.

    For use only while no server uses the repository.
    """
    versions = Versions.read(repository)
    live_versions(repository)
    current = () if versions.current is None else (versions.current,)
    set_live(repository, current)
    remove_leftovers(repository, versions)
    return versions


def remove_leftovers(repository: Path, versions: Versions) -> None:
    """Removes temporary folders, and versions that are neither in the history nor visible to Triton."""
    live = live_versions(repository)
    for path in versions_folder(repository).iterdir():
        number = int(path.name) if path.name.isdecimal() else None
        unused = number is not None and number not in versions.history and number not in live
        if path.is_dir() and (unused or path.name.startswith(".")):
            shutil.rmtree(path)


def prune(repository: Path, versions: Versions, keep: int) -> Versions:
    """Removes all but the last `keep` versions of the history from disk; the current one stays."""
    kept = Versions(versions.history[-max(keep, 1) :], versions.identities)
    if kept != versions:
        kept.write(repository)
        remove_leftovers(repository, kept)
    return kept


def _copy_model_files(model: str, folder: Path) -> None:
    for source in (TEMPLATE / model / "1").glob("*.py"):
        model_file = shutil.copyfile(source, folder / source.name)
        # Otherwise the stub writes the bytecode into the version folder. Triton then sees a changed version, and loads
        # it again at the next deploy.
        py_compile.compile(str(model_file), doraise=True)
