"""Installs a bundle into a model repository as its current version, while no server uses the repository."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from nann.bundle import Bundle
from nann.bundle_check import check_servable
from nann.errors import BundleError, ConfigError
from nann.plans import Plans
from nann.threads import core_count

from ..server.repository_lock import repository_lock
from ..version_folder import TEMPLATE, TENSORRT, bundle_artefacts
from ..version_history import Versions, bundle_of, release_path
from .configs import copy_template, pin_ensemble, search_bounds, write_made_configs
from .instances import fitting_instances, record_instances
from .versions import (
    DEFAULT_KEPT_VERSIONS,
    identity_of,
    locked,
    prune,
    recover,
    write_release,
)

DEFAULT_BUNDLE = Path("build") / "bundle"
"""The bundle that `nann serve` installs by default."""


def install_bundle(
    bundle: Path | str, repository: Path | str, version: int | None = None, plans: Path | str | None = None
) -> Bundle:
    """Installs a bundle as one version of all models, for every target, and makes it current.

    Files are linked, or copied across file systems. A bundle that already is a version of the repository is not written
    again. A running server does not change: that takes `nann.python_backend.repository.deploy`.

    Args:
        bundle: the bundle's folder, verified first.
        repository: a model repository; `copy_template` updates its hand-written files.
        version: number of the version; None: the one that the bundle already has, or the next.
        plans: TensorRT plans of the bundle (`nann build-engine`); only the target `tensorrt` needs them.

    Returns:
        The opened bundle.

    Raises:
        BundleError: if the bundle is incomplete or changed, the plans are not of it, or the number can't be used.
        ConfigError: if the folder can't be used as a repository, or a server uses it.
        DeployError: if the version can't be written.
    """
    opened, opened_plans = open_artefacts(bundle, plans)
    with _unserved(Path(repository)):
        _install(opened, opened_plans, Path(repository), version)
    return opened


def _install(bundle: Bundle, plans: Plans | None, repository: Path, version: int | None = None) -> None:
    copy_template(repository)
    with locked(repository):
        versions = recover(repository)
        number, identity = choose_version(repository, versions, bundle, plans, version)
        if not release_path(repository, number).exists():
            check_new(bundle, repository)
            write_release(bundle, repository, number, plans)
        versions.with_current(number, identity).write(repository)
        _activate(repository)


def install_if_new(bundle: Path | None, repository: Path, plans: Path | None = None) -> int:
    """Prepares a repository for the start of a server, even after a command that was interrupted.

    A bundle that never was a version of the repository is verified and becomes its current one. A bundle that was, such
    as that of the first start after later deploys, changes nothing: only its manifest is read. The start verifies the
    files of the current version. Without `bundle`, `DEFAULT_BUNDLE` is used if it exists. Nothing is written that is
    there already.

    Returns:
        The current version.

    Raises:
        BundleError, ConfigError, DeployError: as for `install_bundle`.
    """
    installed = repository.is_dir() and Versions.read(repository).current is not None
    new = None
    if bundle is not None or not installed or DEFAULT_BUNDLE.exists():
        listed = Bundle.open(bundle or DEFAULT_BUNDLE, ())
        identity = identity_of(listed, None if plans is None else _servable_plans(plans, listed))
        if identity not in Versions.read(repository).identities.values():
            new = open_artefacts(listed.path, plans)
    with _unserved(repository):
        if new is not None:
            _install(*new, repository)
            with locked(repository):
                prune(repository, Versions.read(repository), DEFAULT_KEPT_VERSIONS)
        copy_template(repository)
        with locked(repository):
            return _activate(repository)


def set_instances(repository: Path, steps: str, asked: int | None) -> int:
    """Sets how many processes search side by side, where `nann serve` serves with one step; None: as many as fit.

    Returns:
        The number; the configuration of beam_retrieval has the last word if a person has set another than 1 there.
    """
    instances = asked or fitting_instances(current_bundle(repository), steps, core_count())
    if record_instances(repository, instances):
        current = Versions.read(repository).current
        assert current is not None
        write_made_configs(repository, current)
    return instances


def current_bundle(repository: Path) -> Bundle:
    """Opens the bundle of the current version, in the folder of beam_retrieval."""
    current = Versions.read(repository).current
    if current is None:
        raise ConfigError(f"{repository} has no version; install a bundle with `nann serve --bundle`")
    return bundle_of(repository, current)


def open_artefacts(bundle: Path | str, plans: Path | str | None) -> tuple[Bundle, Plans | None]:
    """Verifies a bundle, and its plans if there are any.

    Raises:
        BundleError: naming what is missing, was changed or does not fit.
    """
    opened = Bundle.open(bundle)
    bundle_artefacts(opened.manifest)
    return opened, None if plans is None else _servable_plans(Path(plans), opened)


def check_new(bundle: Bundle, repository: Path) -> None:
    """Checks that a bundle makes sense, and that the repository's server allows the searches that it recommends.

    Raises:
        BundleError: naming what is wrong.
    """
    check_servable(bundle)
    bounds = search_bounds(repository)
    for params in bundle.search_by_entry.values():
        bounds.check_defaults(params, bundle.item_count)


def choose_version(
    repository: Path, versions: Versions, bundle: Bundle, plans: Plans | None, asked: int | None
) -> tuple[int, str]:
    """The version number of a bundle in the repository, and the bundle's identity.

    Raises:
        BundleError: if the number can't be used.
    """
    identity = identity_of(bundle, plans)
    if asked is None:
        known = (number for number, name in versions.identities.items() if name == identity)
        return max(
            (number for number in known if release_path(repository, number).exists()), default=versions.next
        ), identity
    if asked < 1:
        raise BundleError(f"version is {asked}; expected at least 1")
    if versions.identities.get(asked, identity) != identity:
        raise BundleError(
            f"version {asked} is another bundle (identity {versions.identities[asked]}); a version never changes: "
            f"choose another number, such as {versions.next}"
        )
    return asked, identity


@contextlib.contextmanager
def _unserved(repository: Path) -> Iterator[None]:
    """Keeps servers and other installations away from a repository, which must not be the template.

    Raises:
        ConfigError: if it is, or one of them uses the repository.
    """
    if repository.resolve() == TEMPLATE:
        raise ConfigError(f"{repository} holds the hand-written files; choose another folder for the repository")
    with repository_lock(repository, "an installation"):
        yield


def _activate(repository: Path) -> int:
    current = recover(repository).current
    assert current is not None
    write_made_configs(repository, current)
    pin_ensemble(repository, current)
    return current


def _servable_plans(path: Path, bundle: Bundle) -> Plans:
    plans = Plans.open(path, bundle)
    library = plans.manifest["library"]
    if library != TENSORRT:
        raise BundleError(
            f"the plans in {path} were built with {library}, which Triton does not load; build them with TensorRT, in "
            "the container image that serves them"
        )
    return plans
