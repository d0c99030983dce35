"""`nann refresh`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nann.errors import ConfigError

from .deploy import deploy as deploy_command
from .support import (
    DEFAULT_BUNDLE,
    DEFAULT_REPOSITORY,
    DEFAULT_URL,
    AdminKeyOption,
    BundleOption,
    JsonOption,
    RepositoryOption,
    UrlOption,
    console,
    print_json,
)

if TYPE_CHECKING:
    from nann.bundle import Bundle


def refresh(
    bundle: BundleOption = DEFAULT_BUNDLE,
    repository: RepositoryOption = DEFAULT_REPOSITORY,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the next bundle. Default: in place of --bundle.", show_default=False)
    ] = None,
    deploy: Annotated[
        bool, typer.Option("--deploy", help="Then make it the current version, as `nann deploy`.")
    ] = False,
    url: UrlOption = DEFAULT_URL,
    plans: Annotated[
        Path | None, typer.Option(help="TensorRT plans, if the server's target is tensorrt: those of --bundle fit.")
    ] = None,
    admin_key_file: AdminKeyOption = None,
    threads: Annotated[int, typer.Option(help="hnswlib's threads. 1: a reproducible graph; -1: all cores.")] = -1,
    json: JsonOption = False,
) -> None:
    """Make the next bundle from this one and the changes of its items, without training.

    Items that were added, changed or deleted while the server of the repository answered are built into the graph, the
    items' rows and their attributes. The models stay as they are, so TensorRT plans fit again. A new item in a user's
    history stays unknown to the user encoder until the next training. Changes that come in the meantime stay in the
    journal: the server applies them to the new bundle.
    """
    from nann.bundle import Bundle
    from nann.catalog.journal import journal_path

    from ..training.search.refresh import refresh_bundle

    if not repository.is_dir():
        raise ConfigError(f"{repository} is missing; expected the model repository that `nann serve` serves")
    opened = Bundle.open(bundle)
    _check_journal(opened, repository)
    made = refresh_bundle(opened, journal_path(repository), out or bundle, threads=threads)
    if made is None:
        console.print(f"{bundle} has all changes of {repository}; nothing was written")
    else:
        console.print(
            f"bundle {out or bundle}: {made.items:,} items after change {made.sequence:,}: {made.added:,} added, "
            f"{made.replaced:,} with other vectors, {made.removed:,} removed; no search can reach {made.unreachable:,}",
            highlight=False,
            soft_wrap=True,
        )
        if made.unplaced:
            console.print(
                f"{made.unplaced:,} items came without vectors for this bundle's models and are not in it: add them "
                "again with vectors",
                soft_wrap=True,
            )
    deployed = deploy and (made is not None or not _answers(opened, repository))
    if deployed:
        deploy_command(out or bundle, repository, url=url, plans=plans, admin_key_file=admin_key_file)
    if json:
        done = {"written": made is not None, "deployed": deployed}
        print_json({"bundle": str(out or bundle), **done, **({} if made is None else asdict(made))})


def _answers(bundle: Bundle, repository: Path) -> bool:
    """Whether a bundle is the current version: the deploy after an earlier refresh may have failed."""
    from ..python_backend.repository.install import current_bundle

    return current_bundle(repository).identity == bundle.identity


def _check_journal(bundle: Bundle, repository: Path) -> None:
    """Refuses a bundle for which the journal may lack changes, which a compaction has left out."""
    from nann.manifest import JOURNAL_SEQUENCE

    from ..python_backend.version_history import contained_sequence

    own, needed = int(bundle.manifest.get(JOURNAL_SEQUENCE, 0)), contained_sequence(repository)
    if own < needed:
        raise ConfigError(
            f"{bundle.path} has the changes up to {own:,}, and the versions in {repository} those up to {needed:,}: "
            "the journal may lack those between; name the bundle that was deployed last"
        )
