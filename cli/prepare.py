"""`nann prepare`: from an interaction log to a prepared data set folder."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nann.errors import ConfigError

from .prepared_summary import show
from .protocol_options import protocol_of, with_protocol_options
from .support import JsonOption, console, print_json

if TYPE_CHECKING:
    from ..training.data.protocol import Protocol
    from ..training.data.rows import InteractionLog

app = typer.Typer(
    name="prepare",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="Turn an interaction log into a prepared data set: users split, items numbered, rows in order.\n\n"
    "What a user did next is the ground truth, predicted from all before it; `--protocol` says what is next. "
    "`nann train` reads the folder that this writes.",
)

DATA_FOLDER = Path("build/data")

FilesArgument = Annotated[list[Path], typer.Argument(help="The log's files, in order.", metavar="FILE")]
OutOption = Annotated[
    Path | None, typer.Option(help="Folder to write; a prepared data set there is replaced. Default: build/data/NAME.")
]
MaxBadShareOption = Annotated[
    float, typer.Option(help="Refuse the log if a larger share of its rows is bad.", min=0.0, max=1.0)
]


def _items_option(about: str) -> Any:
    return typer.Option(help=about, rich_help_panel="Item attributes")


@app.command("userbehavior")
@with_protocol_options(10_000, 10_000)
def userbehavior(
    files: FilesArgument,
    out: OutOption = None,
    max_bad_share: MaxBadShareOption = 0.01,
    behavior_types: Annotated[
        str, typer.Option(help="Behaviour types to keep, separated by commas.")
    ] = "pv,cart,fav,buy",
    json_output: JsonOption = False,
    **protocol: Any,
) -> None:
    """Prepare Taobao's UserBehavior (user, item, category, type, Unix seconds; no header; plain or gzip).

    Example: nann prepare userbehavior UserBehavior.csv --validation-users 10000 --test-users 10000
    """
    from ..training.data.user_behavior import read_user_behavior

    read = partial(read_user_behavior, files, behavior_types=_names(behavior_types), max_bad_share=max_bad_share)
    _prepare(read, "userbehavior", out, protocol_of(protocol), json_output)


@app.command("complete-journey")
@with_protocol_options(200, 600)
def complete_journey(
    out: OutOption = None,
    with_profile: Annotated[
        bool, typer.Option("--with-profile", help="Use household demographics as user profile fields.")
    ] = False,
    json_output: JsonOption = False,
    **protocol: Any,
) -> None:
    """Prepare Complete Journey, a year of grocery baskets (simulated from real shopping patterns), from its package.

    Example: nann prepare complete-journey --with-profile
    """
    from ..training.data.complete_journey import read_complete_journey

    # All items of the shop stay in the corpus, even if every household that bought one is left out.
    applied = protocol_of(protocol, whole_corpus=True)
    _prepare(partial(read_complete_journey, with_profile=with_profile), "complete_journey", out, applied, json_output)


@app.command("log")
@with_protocol_options()
def log(
    files: FilesArgument,
    out: OutOption = None,
    name: Annotated[str, typer.Option(help="Name of the data set.")] = "log",
    user: Annotated[str, typer.Option(help="Column with the user: a number or text.")] = "user",
    item: Annotated[str, typer.Option(help="Column with the item: a positive whole number.")] = "item",
    time: Annotated[str, typer.Option(help="Column with the time: seconds, a timestamp or ISO 8601 text.")] = "time",
    category: Annotated[str | None, typer.Option(help="Column with the item's category.")] = None,
    basket: Annotated[str | None, typer.Option(help="Column with the basket or session.")] = None,
    separator: Annotated[str, typer.Option(help="Between the fields of a CSV file; 'tab' for a tab.")] = ",",
    profile: Annotated[
        Path | None, typer.Option(help="CSV or Parquet file of user profiles, one row per user.")
    ] = None,
    profile_user: Annotated[
        str | None, typer.Option(help="Column of --profile with the user. Default: --user.")
    ] = None,
    profile_fields: Annotated[
        str, typer.Option(help="Columns of --profile that are fields, separated by commas. Default: all.")
    ] = "",
    profile_numbers: Annotated[
        str,
        typer.Option(
            help="Columns of --profile to read as numbers, cut into at most 16 bins. Floats always are; all else is a "
            "category."
        ),
    ] = "",
    items: Annotated[Path | None, _items_option("CSV or Parquet file with one row per item.")] = None,
    items_id: Annotated[str | None, _items_option("Column with the item. Default: --item.")] = None,
    items_fields: Annotated[
        str,
        _items_option(
            "Columns that are attributes, separated by commas: text and whole numbers are categories, floats are "
            "numbers, lists are several values. Default: all but the names."
        ),
    ] = "",
    items_numbers: Annotated[
        str, _items_option("Columns to read as numbers, though they hold text or whole numbers.")
    ] = "",
    items_name: Annotated[str | None, _items_option("Column with the item's name, to be shown to people.")] = None,
    items_separator: Annotated[
        str, _items_option("Between several values in a text; '' if a text is one value.")
    ] = "|",
    max_bad_share: MaxBadShareOption = 0.01,
    json_output: JsonOption = False,
    **protocol: Any,
) -> None:
    """Prepare any CSV (with a header; plain or gzip) or Parquet log by naming its columns.

    Example: nann prepare log events.parquet --user uid --item sku --time at --basket session_id --name shop

    With attributes of the items: nann prepare log events.parquet --items items.parquet --items-numbers price,year
    """
    from ..training.data.custom_log import LogColumns, ProfileTable, read_log
    from ..training.data.item_table import ItemTable

    columns = LogColumns(user, item, time, category, basket)
    chosen = (profile_user or user, _names(profile_fields), _names(profile_numbers))
    if profile is None and chosen != (user, (), ()):
        raise ConfigError("a --profile- option is given without a table of users; give the table with --profile")
    table = None if profile is None else ProfileTable(profile, *chosen)
    names = (items_id or item, _names(items_fields), _names(items_numbers), items_name)
    if items is None and names != (item, (), (), None):
        raise ConfigError("an --items- option is given without a table of items; give the table with --items")
    item_table = None if items is None else ItemTable(items, *names, items_separator)
    mark = "\t" if separator in ("tab", "\\t") else separator
    read = partial(read_log, files, columns, name=name, separator=mark, profile=table, items=item_table)
    read = partial(read, max_bad_share=max_bad_share)
    _prepare(read, name, out, protocol_of(protocol), json_output)


@app.command("synthetic")
@with_protocol_options()
def synthetic(
    items: Annotated[int, typer.Option(help="Items of the corpus; each of them occurs.", min=1)] = 1_000_000,
    users: Annotated[int | None, typer.Option(help="Default: 0.235 per item, as in UserBehavior.", min=1)] = None,
    behaviors: Annotated[float, typer.Option(help="Mean number of behaviours per user.", min=1)] = 87.4,
    interests: Annotated[int, typer.Option(help="Mean number of simultaneous interests per user.", min=1)] = 6,
    categories: Annotated[
        int | None, typer.Option(help="Default: one per 441 items, as in UserBehavior.", min=1)
    ] = None,
    skew: Annotated[float, typer.Option(help="Zipf exponent of the items' popularity.", min=0)] = 1.0,
    drift: Annotated[float, typer.Option(help="New interests per behaviour.", min=0)] = 0.03,
    repeat: Annotated[float, typer.Option(help="Share of behaviours that repeat an earlier item.", min=0)] = 0.1,
    out: OutOption = None,
    json_output: JsonOption = False,
    **protocol: Any,
) -> None:
    """Make and prepare a synthetic log of any size, with proportions like UserBehavior and a known structure.

    Each user has a few interests at a time, which are groups of similar items within a category. Popularity is skewed.

    Example: nann prepare synthetic --items 1000000 --seed 1
    """
    from ..training.data.synthetic import SyntheticSpec, synthetic_log

    spec = SyntheticSpec(
        items=items,
        users=users,
        behaviors_per_user=behaviors,
        least_behaviors=min(10, int(behaviors)),
        interests=interests,
        categories=categories,
        skew=skew,
        drift=drift,
        repeat=repeat,
        seed=protocol["seed"],
    )
    _prepare(partial(synthetic_log, spec), spec.name, out, protocol_of(protocol), json_output)


def _names(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _prepare(
    read: Callable[[Path], InteractionLog],
    name: str,
    out: Path | None,
    protocol: Protocol,
    json_output: bool,
) -> None:
    from ..training.data.prepare import prepare

    folder = out or DATA_FOLDER / name
    with console.status("Starting") as status:
        manifest = prepare(read, folder, protocol, lambda step: status.update(f"{step} ..."), name)
    show(manifest, folder)
    if json_output:
        summary = {key: manifest[key] for key in ("name", "counts", "warnings", "rows", "protocol")}
        print_json({"path": str(folder), **summary})
