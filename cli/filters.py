"""`nann filters`: filters with a name, which an operator may replace while servers run."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer

from nann import item_sets
from nann.errors import ConfigError
from nann.filters import NamedFilters, ServedFilters
from nann.item_ids import IdKind, Ids, kind_of_typed

from .support import DEFAULT_REPOSITORY, JsonOption, RepositoryOption, console, make_table, output, print_json

if TYPE_CHECKING:
    from nann.bundle import Bundle

app = typer.Typer(
    name="filters",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="Filters with a name, for requests with the parameter `filter_name`.\n\n"
    "They belong to a model repository: its running servers follow with the next request, and they stay when a server "
    "starts again or another bundle is deployed.",
)

NameArgument = Annotated[str, typer.Argument(help="The filter's name.", metavar="NAME")]


@app.command("set")
def set_filter(
    name: NameArgument,
    text: Annotated[
        str | None, typer.Argument(help="The filter, as in a request's `filter`.", metavar="[FILTER]")
    ] = None,
    ids: Annotated[
        Path | None, typer.Option(help="Instead: a file with the id of one item a line, of those that are allowed.")
    ] = None,
    repository: RepositoryOption = DEFAULT_REPOSITORY,
    json: JsonOption = False,
) -> None:
    """Set a filter, or replace the one that has the name.

    Example: nann filters set affordable 'price < 20 and available'

    With a list of items: nann filters set available_de --ids available_de.txt
    """
    if (text is None) == (ids is None):
        raise ConfigError(
            f"filter {name!r} came with {'neither' if text is None else 'both'} a text and --ids; give one"
        )
    named, bundle = _named(repository), _current(repository)
    definition = _ids(ids, None if bundle is None else bundle.id_kind) if ids is not None else str(text)
    if bundle is None:
        named.set(name, definition)
        console.print("no bundle is installed in the repository yet: attributes are checked when it is used")
        matching = None
    else:
        allowed = ServedFilters.of_bundle(bundle).compiled(name, definition)
        named.set(name, definition)
        matching = item_sets.count(allowed)
        unknown = "" if isinstance(definition, str) else f"; {len(np.unique(definition)) - matching:,} ids are unknown"
        console.print(f"filter {name} allows {matching:,} of {bundle.item_count:,} items{unknown}", highlight=False)
    if json:
        print_json({"name": name, "items_matching": matching})


@app.command("list")
def list_filters(repository: RepositoryOption = DEFAULT_REPOSITORY, json: JsonOption = False) -> None:
    """Show the filters of a repository: the operator's, and those of its current bundle."""
    named, bundle = _named(repository), _current(repository)
    own = {name: _described(named, name) for name in named.names()}
    rows = [(name, "operator", text) for name, text in own.items()]
    of_bundle = {} if bundle is None else bundle.filters
    rows += [(name, "bundle", text) for name, text in of_bundle.items() if name not in own]
    output.print(make_table("Filters", ("name", "of", "filter"), sorted(rows)))
    if json:
        keys = ("name", "of", "filter")
        print_json({"filters": [dict(zip(keys, row, strict=True)) for row in sorted(rows)]})


@app.command("remove")
def remove_filter(name: NameArgument, repository: RepositoryOption = DEFAULT_REPOSITORY) -> None:
    """Remove an operator's filter; requests that name it are refused, unless the bundle has one of this name."""
    _named(repository).remove(name)
    console.print(f"filter {name} is removed", highlight=False)


def named_filters(given: Iterable[str]) -> dict[str, str]:
    """Reads NAME=FILTER.

    Raises:
        ConfigError: if there is no "=", or a name twice.
    """
    found: dict[str, str] = {}
    for each in given:
        name, equals, text = each.partition("=")
        if not equals or name in found:
            raise ConfigError(f"--named-filter is {each!r}; expected NAME=FILTER, each name once")
        found[name] = text
    return found


def warn_of_misfits(repository: Path) -> None:
    """Says which of the operator's filters the current bundle of a repository can't use."""
    bundle = _current(repository)
    if bundle is not None:
        for why in ServedFilters.of_bundle(bundle, NamedFilters.of_repository(repository)).misfits():
            console.print(f"warning: {why}; requests that name it are refused", soft_wrap=True, markup=False)


def _named(repository: Path) -> NamedFilters:
    if not repository.is_dir():
        raise ConfigError(f"{repository} is no model repository; `nann serve` makes one, or name it with --repository")
    return NamedFilters.of_repository(repository)


def _current(repository: Path) -> Bundle | None:
    """The part of the repository's current bundle that searches use."""
    from nann.bundle import Bundle
    from nann.signature import BEAM_RETRIEVAL

    from ..python_backend.repository.versions import Versions, release_path

    version = Versions.read(repository).current
    return None if version is None else Bundle.open(release_path(repository, version) / BEAM_RETRIEVAL.name, ())


def _described(named: NamedFilters, name: str) -> str:
    try:
        definition = named.read(name)
    except ConfigError as error:
        return str(error)
    return definition if isinstance(definition, str) else f"{0 if definition is None else len(definition):,} ids"


def _ids(path: Path, kind: IdKind | None) -> Ids:
    """The ids in a file, of the bundle's kind, if it is known."""
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except FileNotFoundError as error:
        raise ConfigError(f"{path} is missing; expected a file with the id of one item a line") from error
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} can't be read: {error}; expected the id of one item a line") from error
    texts = {number: line.strip() for number, line in enumerate(lines, 1) if line.strip()}
    kind = kind or kind_of_typed(texts.values())
    ids = []
    for number, text in texts.items():
        try:
            ids.append(kind.item(text))
        except ValueError as error:  # noqa: PERF203
            raise ConfigError(f"line {number} of {path}: {error}; expected the id of one item") from error
    if not ids:
        raise ConfigError(f"{path} holds no ids; expected the id of one item a line: a filter must allow something")
    return kind.stored(ids)
