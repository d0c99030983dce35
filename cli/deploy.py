"""`nann deploy` and `nann rollback`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .filters import warn_of_misfits
from .support import (
    DEFAULT_REPOSITORY,
    DEFAULT_URL,
    AdminKeyOption,
    JsonOption,
    RepositoryOption,
    UrlOption,
    console,
    model_control,
    print_json,
)

if TYPE_CHECKING:
    from ..python_backend.repository.deploy import Change


def deploy(
    bundle: Annotated[Path, typer.Argument(help="Bundle, from `nann index` and `nann export`.")],
    repository: RepositoryOption = DEFAULT_REPOSITORY,
    version: Annotated[
        int | None, typer.Option(help="Number of the new version. Default: the next.", show_default=False)
    ] = None,
    url: UrlOption = DEFAULT_URL,
    plans: Annotated[
        Path | None, typer.Option(help="TensorRT plans of the bundle, if the server's target is tensorrt.")
    ] = None,
    keep: Annotated[int, typer.Option(help="How many versions stay on disk for `nann rollback`.", min=1)] = 3,
    admin_key_file: AdminKeyOption = None,
    json: JsonOption = False,
) -> None:
    """Make a bundle the current version of a running server, without dropping a request.

    It is loaded beside the version that answers. Its answers for a few users are compared with those of the same search
    outside the server. Then all new requests go to it; until then a failure changes nothing.
    """
    from ..python_backend.repository.deploy import deploy as deploy_bundle

    control = model_control(url, admin_key_file)
    _report(deploy_bundle(bundle, repository, control, version=version, plans=plans, keep=keep), json)
    warn_of_misfits(repository)


def rollback(
    repository: RepositoryOption = DEFAULT_REPOSITORY,
    version: Annotated[
        int | None, typer.Option(help="Version to return to. Default: the one before the current.", show_default=False)
    ] = None,
    url: UrlOption = DEFAULT_URL,
    offline: Annotated[
        bool, typer.Option("--offline", help="No server runs; the next one to start will serve it.")
    ] = False,
    admin_key_file: AdminKeyOption = None,
    json: JsonOption = False,
) -> None:
    """Make an earlier version the current one again, without dropping a request."""
    from ..python_backend.repository.deploy import rollback_offline, rollback_online

    if not offline:
        _report(rollback_online(repository, model_control(url, admin_key_file), version), json)
        warn_of_misfits(repository)
        return
    returned = rollback_offline(repository, version)
    console.print(f"version {returned} will answer at the next start")
    warn_of_misfits(repository)
    if json:
        print_json({"version": returned})


def _report(change: Change, json: bool) -> None:
    console.print(
        f"version {change.version} answers now instead of version {change.previous}. Loading and comparing took "
        f"{change.load_s:.1f} s, the switch {change.switch_ms:.0f} ms, unloading the old one {change.retire_s:.1f} s",
        soft_wrap=True,
    )
    if json:
        print_json(asdict(change))
