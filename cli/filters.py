"""`nann filters`: filters with a name, which an operator may replace while servers run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer

from nann.errors import ConfigError
from nann.signature import FILTER_ITEM_IDS, LIST_FILTERS, REMOVE_FILTER, SET_FILTER

from .support import (
    DEFAULT_REPOSITORY,
    AdminKeyOption,
    JsonOption,
    RepositoryOption,
    console,
    make_table,
    model_control,
    output,
    print_json,
)

if TYPE_CHECKING:
    from ..python_backend.operator_filters import OperatorFilters

app = typer.Typer(
    name="filters",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="Filters with a name, for requests with the parameter `filter_name`.\n\n"
    "They belong to a model repository: its running servers follow with the next request, and they stay when a server "
    "starts again or another bundle is deployed.\n\n"
    "With `--url` a running server changes its own repository, for whoever has its admin key; else this command does, "
    "which must be allowed to write there.",
)

NameArgument = Annotated[str, typer.Argument(help="The filter's name.", metavar="NAME")]
ServerOption = Annotated[
    str | None,
    typer.Option(
        "--url", help="HTTP address of a running server, host:port, which then uses its own repository.", metavar="URL"
    ),
]


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
    url: ServerOption = None,
    admin_key_file: AdminKeyOption = None,
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
    listed = None if ids is None else _listed(ids)
    if url is None:
        filters = _operator_filters(repository, admin_key_file)
        answer = filters.set(name, str(text) if listed is None else filters.ids(listed))
    else:
        given = {} if text is None else {"filter": text}
        tensors = None if listed is None else {FILTER_ITEM_IDS: np.array([listed], object)}
        answer = model_control(url, admin_key_file).catalog(SET_FILTER, tensors, name=name, **given)
    if answer["item_count"] is None:
        console.print("no bundle is installed in the repository yet: attributes are checked when it is used")
    else:
        unknown = "" if answer["unknown_ids"] is None else f"; {answer['unknown_ids']:,} ids are unknown"
        items = f"{answer['items_matching']:,} of {answer['item_count']:,} items"
        console.print(f"filter {name} allows {items}{unknown}", highlight=False)
    if json:
        print_json(answer)


@app.command("list")
def list_filters(
    repository: RepositoryOption = DEFAULT_REPOSITORY,
    url: ServerOption = None,
    admin_key_file: AdminKeyOption = None,
    json: JsonOption = False,
) -> None:
    """Show the filters of a repository: the operator's, and those of its current bundle."""
    if url is None:
        answer = _operator_filters(repository, admin_key_file).listed()
    else:
        answer = model_control(url, admin_key_file).catalog(LIST_FILTERS)
    columns = ("name", "of", "filter")
    output.print(make_table("Filters", columns, ([each[column] for column in columns] for each in answer["filters"])))
    if json:
        print_json(answer)


@app.command("remove")
def remove_filter(
    name: NameArgument,
    repository: RepositoryOption = DEFAULT_REPOSITORY,
    url: ServerOption = None,
    admin_key_file: AdminKeyOption = None,
) -> None:
    """Remove an operator's filter; requests that name it are refused, unless the bundle has one of this name."""
    if url is None:
        _operator_filters(repository, admin_key_file).remove(name)
    else:
        model_control(url, admin_key_file).catalog(REMOVE_FILTER, name=name)
    console.print(f"filter {name} is removed", highlight=False)


def warn_of_misfits(repository: Path) -> None:
    """Says which of the operator's filters the current bundle of a repository can't use."""
    from ..python_backend.operator_filters import OperatorFilters

    for why in OperatorFilters(repository).misfits():
        console.print(f"warning: {why}; requests that name it are refused", soft_wrap=True, markup=False)


def _operator_filters(repository: Path, admin_key_file: Path | None) -> OperatorFilters:
    from ..python_backend.operator_filters import OperatorFilters

    if admin_key_file is not None:
        raise ConfigError("--admin-key-file came without --url; name the server with --url, or leave both out")
    if not repository.is_dir():
        raise ConfigError(f"{repository} is no model repository; `nann serve` makes one, or name it with --repository")
    return OperatorFilters(repository)


def _listed(path: Path) -> list[str]:
    """The ids in a file."""
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except FileNotFoundError as error:
        raise ConfigError(f"{path} is missing; expected a file with the id of one item a line") from error
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} can't be read: {error}; expected the id of one item a line") from error
    return [line.strip() for line in lines if line.strip()]
