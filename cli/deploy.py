"""`nann deploy` and `nann rollback`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .support import DEFAULT_REPOSITORY, AdminKeyOption, JsonOption, RepositoryOption, console, print_json

if TYPE_CHECKING:
    from ..python_backend.repository.deploy import Change

UrlOption = Annotated[str, typer.Option(help="HTTP address of the server, host:port.")]
DEFAULT_URL = "127.0.0.1:8000"


def deploy(
    bundle: Annotated[Path, typer.Argument(help="From `nann index` and `nann export`.")],
    repository: RepositoryOption = DEFAULT_REPOSITORY,
    version: Annotated[
        int | None, typer.Option(help="Number of the new version. Default: the next.", show_default=False)
    ] = None,
    url: UrlOption = DEFAULT_URL,
    plans: Annotated[
        Path | None, typer.Option(help="TensorRT plans of the bundle, where the server's target is tensorrt.")
    ] = None,
    keep: Annotated[int, typer.Option(help="How many versions stay on disk, to roll back to.", min=1)] = 3,
    admin_key_file: AdminKeyOption = None,
    json: JsonOption = False,
) -> None:
    """Make a bundle the current version of a running server, without dropping a request.

    It is written and loaded beside the version that answers, asked for a few users and compared with what its files
    say; then all requests that come go to it. Until then a failure changes nothing.
    """
    from ..python_backend.repository.deploy import deploy as deploy_bundle
    from ..python_backend.server.admin_key import read_admin_key
    from ..python_backend.server.control import ModelControl

    control = ModelControl(url, read_admin_key(admin_key_file))
    change = deploy_bundle(bundle, repository, control, version=version, plans=plans, keep=keep)
    _report(change, json)


def rollback(
    repository: RepositoryOption = DEFAULT_REPOSITORY,
    version: Annotated[
        int | None, typer.Option(help="Which. Default: the one before the current.", show_default=False)
    ] = None,
    url: UrlOption = DEFAULT_URL,
    offline: Annotated[
        bool, typer.Option("--offline", help="No server runs: the next one that starts answers with it.")
    ] = False,
    admin_key_file: AdminKeyOption = None,
    json: JsonOption = False,
) -> None:
    """Make an earlier version the current one again, without dropping a request."""
    from ..python_backend.repository.deploy import rollback_offline, rollback_online
    from ..python_backend.server.admin_key import read_admin_key
    from ..python_backend.server.control import ModelControl

    if offline:
        returned = rollback_offline(repository, version)
        console.print(f"version {returned} will answer at the next start")
        if json:
            print_json({"version": returned})
        return
    _report(rollback_online(repository, ModelControl(url, read_admin_key(admin_key_file)), version), json)


def _report(change: Change, json: bool) -> None:
    words = (
        f"version {change.version} answers; version {change.previous} did.",
        f"Loaded and compared in {change.load_s:.1f} s, changed in {change.switch_ms:.0f} ms,",
        f"the other gone after {change.retire_s:.1f} s",
    )
    console.print(" ".join(words), soft_wrap=True)
    if json:
        print_json(asdict(change))
