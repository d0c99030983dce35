"""Changes the version that a running server answers with. No request fails, and no answer mixes two versions.

1. The new version is written completely and shown to Triton, which loads it beside the version that answers.
2. Its answers for a few users are compared with a search of its files.
3. It becomes the current one: on disk, then in the server, by reloading the ensemble with every step pinned to it.
   Requests that are under way finish on the version that they began with.
4. The old version is unloaded once no request uses it: beam_retrieval first, since its searches still call the scorer.

A failure before step 3 ends is undone, and the old version still answers.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from nann.errors import DeployError, NannError
from nann.signature import BEAM_RETRIEVAL, ENSEMBLE, SCORER

from ..server.control import CHANGING, READY, ModelControl
from ..server.repository_lock import repository_lock
from ..server.served_form import ServedForm
from ..version_history import Versions, bundle_of, release_path
from .answer_check import check_release
from .configs import made_configs, pin_ensemble, write_made_configs
from .install import check_new, choose_version, open_artefacts
from .versions import (
    DEFAULT_KEPT_VERSIONS,
    locked,
    models_locked,
    prune,
    remove_leftovers,
    set_live,
    write_release,
)

_RETIRE_TIMEOUT_S = 60.0
"""For requests under way on the version that is unloaded: longer than any of them may take."""
_LEFTOVER_TIMEOUT_S = 15.0
_SETTLE_TIMEOUT_S = 30.0
"""For a process that died in the meantime to be loaded again."""
_POLL_S = 0.05


@dataclass(frozen=True)
class Change:
    """The result of a deploy or a rollback.

    Attributes:
        version: the version that answers now.
        previous: the version that answered before.
        load_s: time to load the version and check its answers.
        switch_ms: time to switch, until Triton answers with the new version.
        retire_s: time to unload the previous version.
    """

    version: int
    previous: int
    load_s: float
    switch_ms: float
    retire_s: float


def deploy(
    bundle: Path,
    repository: Path,
    control: ModelControl,
    *,
    version: int | None = None,
    plans: Path | None = None,
    keep: int = DEFAULT_KEPT_VERSIONS,
) -> Change:
    """Makes a bundle the current version of a running server.

    Args:
        bundle: the bundle's folder, verified before anything else.
        repository: the model repository that the server serves.
        control: the server.
        version: number of the version; None: the one that the bundle already has, or the next.
        plans: TensorRT plans of the bundle, if the server's target is `tensorrt`.
        keep: how many versions stay on disk.

    Raises:
        BundleError: if the bundle, the plans or the number can't be used.
        DeployError: if the version can't be written or loaded, or fails the check; the old version still answers.
        ServerUnavailable: if no server answers.
    """
    opened, opened_plans = open_artefacts(bundle, plans)
    with locked(repository):
        versions = _served_versions(repository, control)
        number, identity = choose_version(repository, versions, opened, opened_plans, version)
        if number == versions.current:
            raise DeployError(f"version {number}, which already answers, is this bundle; nothing was changed")
        if not release_path(repository, number).exists():
            check_new(opened, repository)
            write_release(opened, repository, number, opened_plans)
        after = versions.with_current(number, identity)
        change = _change(repository, control, versions, after)
        prune(repository, after, keep)
    return change


def rollback_online(repository: Path, control: ModelControl, version: int | None = None) -> Change:
    """Makes an earlier version of a running server current again; by default the one before the current version.

    Raises:
        DeployError: if there is no such version, or it fails the check; the answers have not changed.
        ServerUnavailable: if no server answers.
    """
    with locked(repository):
        versions = _served_versions(repository, control)
        return _change(repository, control, versions, _rolled_back(repository, versions, version))


def rollback_offline(repository: Path, version: int | None = None) -> int:
    """Makes an earlier version current while no server runs, for the next start. Returns the version.

    Raises:
        ConfigError: if a server uses the repository.
        DeployError: if there is no such version.
    """
    with repository_lock(repository, "a rollback"), locked(repository):
        after = _rolled_back(repository, Versions.read(repository), version)
        after.write(repository)
        return after.history[-1]


def _rolled_back(repository: Path, versions: Versions, version: int | None) -> Versions:
    earlier = [number for number in versions.history[:-1] if release_path(repository, number).exists()]
    if not earlier or (version is not None and version not in earlier):
        asked = "earlier version" if version is None else f"version {version}"
        present = ", ".join(map(str, earlier)) or "none"
        raise DeployError(f"there is no {asked} to return to; earlier versions in {repository}: {present}")
    return versions.rolled_back_to(earlier[-1] if version is None else version)


def _served_versions(repository: Path, control: ModelControl) -> Versions:
    """Checks that the server serves this repository, and cleans up after a command that was interrupted."""
    versions = Versions.read(repository)
    answering = control.ready_versions(ENSEMBLE.name)
    interrupted = answering & set(versions.history[:-1])
    if len(answering) == 1 and interrupted:
        # A command was killed after it wrote the version as current, and before the server changed.
        versions = versions.rolled_back_to(*interrupted)
        versions.write(repository)
        pin_ensemble(repository, *interrupted)
    if versions.current is None or answering != {versions.current}:
        raise DeployError(
            f"the server at {control.url} answers with version {_listed(answering)}, but the current one in "
            f"{repository} is {versions.current}; name the repository that it serves"
        )
    for model in _models(control):
        if "all" not in control.config(model).get("version_policy", {}):
            raise DeployError(f"config.pbtxt of {model} has a version_policy other than all; restore it and restart")
    with contextlib.suppress(DeployError):  # a version that does not go answers nothing, and must not stop this command
        _retire(repository, control, versions.current, _LEFTOVER_TIMEOUT_S)
    remove_leftovers(repository, versions)
    return versions


def _change(repository: Path, control: ModelControl, before: Versions, after: Versions) -> Change:
    assert before.current is not None
    assert after.current is not None
    start = time.monotonic()
    with _undone_on_failure(repository, control, before):
        _check_configs(repository, before.current, after.current)
        write_made_configs(repository, after.current)
        set_live(repository, {before.current, after.current})
        if SCORER.name in _models(control):
            _load(repository, control, SCORER.name)
        _load(repository, control, ENSEMBLE.name)  # loads its steps too, and stays pinned to the old version
        _check_loaded(control, after.current)
        check_release(control, repository, after.current)
        loaded = time.monotonic()
        after.write(repository)
        pin_ensemble(repository, after.current)
        _load(repository, control, ENSEMBLE.name)
        if control.ready_versions(ENSEMBLE.name) != {after.current}:
            raise DeployError(f"{ENSEMBLE.name} did not change to version {after.current}")
    switched = time.monotonic()
    _retire(repository, control, after.current)
    return Change(
        after.current,
        before.current,
        round(loaded - start, 3),
        round(1000 * (switched - loaded), 1),
        round(time.monotonic() - switched, 3),
    )


@contextlib.contextmanager
def _undone_on_failure(repository: Path, control: ModelControl, before: Versions) -> Iterator[None]:
    assert before.current is not None
    try:
        yield
    except BaseException as error:
        with contextlib.suppress(NannError, OSError):  # the first failure is the one to report
            before.write(repository)
            pin_ensemble(repository, before.current)
            _load(repository, control, ENSEMBLE.name)
            _retire(repository, control, before.current)
            remove_leftovers(repository, before)
        if isinstance(error, (NannError, OSError)):
            what = f"{repository} can't be written: {error.strerror}" if isinstance(error, OSError) else error
            raise DeployError(f"{what}; version {before.current} still answers") from error
        raise


def _models(control: ModelControl) -> list[str]:
    return [spec.name for spec in ServedForm.of(control).models]


def _load(repository: Path, control: ModelControl, model: str) -> None:
    with models_locked(repository):
        control.load(model)


def _check_loaded(control: ModelControl, version: int) -> None:
    """Checks every model: to load the ensemble succeeds even if a version that it is not pinned to fails."""
    deadline = time.monotonic() + _SETTLE_TIMEOUT_S
    while True:
        loaded = {state.name: state for state in control.states() if state.version == version}
        changing = any(state.state in CHANGING for state in loaded.values())
        if not changing or time.monotonic() > deadline:
            break
        time.sleep(_POLL_S)
    for model in _models(control):
        state = loaded.get(model)
        if state is None or state.state != READY:
            reason = "; does the server serve this repository?" if state is None else f": {state.reason or state.state}"
            raise DeployError(f"{model} did not load version {version}{reason}")


def _check_configs(repository: Path, current: int, version: int) -> None:
    """All versions of a model share one configuration, so the new version must fit it."""
    now, new = (bundle_of(repository, number) for number in (current, version))
    if now.id_kind is not new.id_kind:
        raise DeployError(
            f"version {version} has item ids that are {new.id_kind.words}, and those of version {current}, which "
            f"answers, are {now.id_kind.words}: its clients would fail; serve this bundle from a repository of its own"
        )
    if (new.item_row_width > 0) != (now.item_row_width > 0):
        had, has = ("item rows" if one.item_row_width else "an item table in the scorer" for one in (now, new))
        raise DeployError(
            f"the bundle has {has}, and the current one {had}; Triton reads a model's inputs only at start: restart "
            "`nann serve` with the bundle"
        )
    if made_configs(repository, current) != made_configs(repository, version):
        raise DeployError(
            "the TensorRT plans have other shapes than the current ones, and Triton reads shapes only at start; "
            "restart `nann serve` with the bundle and its plans"
        )


def _retire(repository: Path, control: ModelControl, current: int, timeout_s: float = _RETIRE_TIMEOUT_S) -> None:
    """Unloads all but the current version; searches under way in beam_retrieval end before their scorer is unloaded."""
    stuck = []
    others = [model for model in _models(control) if model != BEAM_RETRIEVAL.name]
    for models in ([BEAM_RETRIEVAL.name], others):
        retiring = [model for model in models if control.loaded_versions(model) - {current}]
        set_live(repository, {current}, models)
        for model in retiring:
            _load(repository, control, model)
        stuck += [model for model in retiring if not _is_soon_alone(control, model, current, timeout_s)]
    set_live(repository, {current})
    if stuck:
        raise DeployError(
            f"version {current} answers, but {', '.join(stuck)} did not unload the version before within "
            f"{timeout_s:.0f} s; the next deploy or rollback tries again"
        )


def _is_soon_alone(control: ModelControl, model: str, version: int, timeout_s: float) -> bool:
    deadline = time.monotonic() + timeout_s
    while control.loaded_versions(model) - {version}:
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_S)
    return True


def _listed(versions: set[int]) -> str:
    return ", ".join(map(str, sorted(versions))) or "none"
