"""`nann items`: adds, changes and deletes items while a server answers."""

from __future__ import annotations

import itertools
import json as json_module
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

from nann.errors import ConfigError, NannError
from nann.signature import (
    ATTRIBUTES,
    CATALOG_STATUS,
    CHANGED_ITEM_IDS,
    DELETE_ITEMS,
    ITEM_LIGHT,
    ITEM_ROW,
    ITEM_VECTOR,
    UPSERT_ITEMS,
    Tensors,
)

from .item_files import ID, LIGHT, ROW, VECTOR, checked_item, read_items
from .support import (
    DEFAULT_URL,
    AdminKeyOption,
    JsonOption,
    UrlOption,
    console,
    make_table,
    model_control,
    output,
    print_json,
)

if TYPE_CHECKING:
    from ..python_backend.server.control import ModelControl

app = typer.Typer(
    name="items",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="Items that were added, changed or deleted after the bundle was made.\n\n"
    "A running server writes them to its repository: every request that begins after the command has ended sees them, "
    "and they stay when the server starts again or another bundle is deployed.",
)

_BATCH, _BATCH_WITH_VECTORS = 1_000, 100
"""Items of one request: all of them are done, or none. Vectors are long as JSON."""
_FileArgument = Annotated[
    Path | None, typer.Argument(help="JSON lines (.jsonl), CSV (.csv) or Parquet (.parquet).", metavar="[FILE]")
]


@app.command()
def add(
    file: _FileArgument = None,
    item: Annotated[
        list[str] | None,
        typer.Option(help='Instead of a file, or beside it: one item as a JSON object, \'{"id": 7, "price": 3.5}\'.'),
    ] = None,
    url: UrlOption = DEFAULT_URL,
    admin_key_file: AdminKeyOption = None,
    json: JsonOption = False,
) -> None:
    """Add items, or change their attributes.

    A row is one item: `id`, and its attributes by name. Attributes that are left out stay as they are; null takes a
    value away. `row` and `light` are an item's vectors, which a new item needs; with `vector` the
    next bundle has it at its own place (`nann refresh`).

    Example: nann items add prices.csv --admin-key-file admin.key
    """
    control = model_control(url, admin_key_file)
    given = [_parsed(text) for text in item or ()]
    if file is None and not given:
        raise ConfigError("nothing came to add; name a file, or give --item")
    types = control.catalog(CATALOG_STATUS)["attributes"] if file is not None else {}
    rows = itertools.chain(given, read_items(file, types) if file is not None else ())
    done = _in_batches(control, UPSERT_ITEMS, map(_upserts, _batches(rows)))
    console.print(f"{done.get('new', 0):,} items are new, {done.get('replaced', 0):,} were there", highlight=False)
    if json:
        print_json(done)


@app.command(context_settings={"ignore_unknown_options": True})
def remove(
    ids: Annotated[list[str] | None, typer.Argument(help="Ids of the items.", metavar="[ID]...")] = None,
    file: Annotated[Path | None, typer.Option(help="A file with items as for `add`; only their ids count.")] = None,
    url: UrlOption = DEFAULT_URL,
    admin_key_file: AdminKeyOption = None,
    json: JsonOption = False,
) -> None:
    """Delete items: no answer to a later request has them.

    Example: nann items remove 1017 1020 --admin-key-file admin.key
    """
    if not ids and file is None:
        raise ConfigError("nothing came to remove; give ids, or --file")
    for each in ids or ():
        if each.startswith("-"):
            raise ConfigError(
                f"{each!r} is neither an option nor an id: ids that are numbers begin at 1; text ids that begin with a "
                "dash are taken from a file, --file"
            )
    rows = itertools.chain(({ID: each} for each in ids or ()), read_items(file, {}) if file is not None else ())
    control = model_control(url, admin_key_file)
    done = _in_batches(control, DELETE_ITEMS, ({CHANGED_ITEM_IDS: _ids(batch)} for batch in _batches(rows)))
    removed, unknown = done.get("removed", 0), done.get("unknown", 0)
    console.print(f"{removed:,} items are removed, {unknown:,} were not there", highlight=False)
    if json:
        print_json(done)


@app.command()
def status(url: UrlOption = DEFAULT_URL, admin_key_file: AdminKeyOption = None, json: JsonOption = False) -> None:
    """Show how the items of a running server differ from its bundle's."""
    answer = model_control(url, admin_key_file).catalog(CATALOG_STATUS)
    shown = {name: value for name, value in answer.items() if not isinstance(value, dict)}
    rows = (
        [name.replace("_", " "), f"{value:,}" if isinstance(value, int) else str(value)]
        for name, value in shown.items()
    )
    output.print(make_table("Items", ("", ""), rows))
    if json:
        print_json(answer)


def _in_batches(control: ModelControl, operation: str, batches: Iterable[Tensors]) -> dict[str, Any]:
    """Sends requests one after the other; returns the sum of their counts and the last sequence number."""
    done: dict[str, Any] = {}
    count = 0
    for tensors in batches:
        try:
            answer = control.catalog(operation, tensors)
        except NannError as error:
            if count:
                console.print(f"the first {count:,} items are done", highlight=False)
            raise error
        count += tensors[CHANGED_ITEM_IDS].size
        sums = {name: done.get(name, 0) + value for name, value in answer.items() if name != "sequence"}
        done = {**sums, "sequence": answer["sequence"]}
    return done


def _batches(rows: Iterable[Mapping[str, Any]]) -> Iterator[list[Mapping[str, Any]]]:
    """Lists of rows, all with the same vectors."""
    for has, alike in itertools.groupby(rows, _vectors_of):
        while batch := list(itertools.islice(alike, _BATCH_WITH_VECTORS if any(has) else _BATCH)):
            yield batch


def _vectors_of(row: Mapping[str, Any]) -> tuple[bool, bool, bool]:
    """Which vectors came. A row that lacks its light vector is not one without vectors: that is a mistake, for all."""
    has_row = row.get(ROW) is not None
    return has_row, row.get(VECTOR) is not None, not has_row and row.get(LIGHT) is not None


def _upserts(batch: Sequence[Mapping[str, Any]]) -> Tensors:
    texts = [
        _text({name: value for name, value in row.items() if name not in (ID, ROW, LIGHT, VECTOR)}) for row in batch
    ]
    tensors: dict[Any, Any] = {CHANGED_ITEM_IDS: _ids(batch), ATTRIBUTES: np.array([texts], object)}
    for spec, name in ((ITEM_ROW, ROW), (ITEM_LIGHT, LIGHT), (ITEM_VECTOR, VECTOR)):
        if batch[0].get(name) is not None:
            try:
                tensors[spec] = np.array([[row[name] for row in batch]], np.float32)
            except (KeyError, TypeError, ValueError) as error:
                raise ConfigError(
                    f"the {name} of items {batch[0][ID]} to {batch[-1][ID]} are not all of one length, or not numbers"
                ) from error
    return tensors


def _ids(batch: Sequence[Mapping[str, Any]]) -> Any:
    return np.array([[str(row[ID]) for row in batch]], object)


def _text(attributes: Mapping[str, Any]) -> str:
    try:
        return json_module.dumps(attributes)
    except TypeError as error:
        raise ConfigError(
            f"{str(attributes)[:80]} can't be sent: {error}; expected texts, numbers, flags or lists"
        ) from error


def _parsed(text: str) -> dict[str, Any]:
    try:
        row = json_module.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"--item is {text[:200]!r}, which is not JSON: {error}") from error
    if not isinstance(row, dict) or ID not in row:
        raise ConfigError(f'--item is {text!r}; expected a JSON object with "{ID}"')
    return checked_item(row, "--item")
