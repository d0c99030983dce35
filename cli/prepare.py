"""`nann prepare`: from an interaction log to a prepared data set folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .support import JsonOption, console, make_table, print_json

if TYPE_CHECKING:
    from ..training.data.rows import InteractionLog

app = typer.Typer(
    name="prepare",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="Turn an interaction log into a prepared data set: users split, items numbered, rows in order.\n\n"
    "The ground truth of a user is the middle behaviour (or basket), predicted from all before it. "
    "`nann train` reads the folder that this writes.",
)

DATA_FOLDER = Path("build/data")

FilesArgument = Annotated[list[Path], typer.Argument(help="The log's files, in order.", metavar="FILE")]
OutOption = Annotated[
    Path | None, typer.Option(help="Folder to write; a prepared data set there is replaced. Default: build/data/NAME.")
]
SeedOption = Annotated[int, typer.Option(help="Random seed of the split.", min=0)]
MinBehaviorsOption = Annotated[int, typer.Option(help="Leave out users with fewer behaviours.", min=1)]
MaxBadShareOption = Annotated[
    float, typer.Option(help="Refuse the log if a larger share of its rows is bad.", min=0.0, max=1.0)
]
ValidationOption = Annotated[int, typer.Option(help="How many random users to validate on.", min=0)]
TestOption = Annotated[int, typer.Option(help="How many random users to test on.", min=0)]
_SHARE_HELP = "How many random users to {} on. Default: a tenth, at most 10,000."
ValidationShareOption = Annotated[int | None, typer.Option(help=_SHARE_HELP.format("validate"), min=0)]
TestShareOption = Annotated[int | None, typer.Option(help=_SHARE_HELP.format("test"), min=0)]


@app.command("userbehavior")
def userbehavior(
    files: FilesArgument,
    out: OutOption = None,
    validation_users: ValidationOption = 10_000,
    test_users: TestOption = 10_000,
    min_behaviors: MinBehaviorsOption = 10,
    seed: SeedOption = 0,
    max_bad_share: MaxBadShareOption = 0.01,
    behavior_types: Annotated[
        str, typer.Option(help="Behaviour types to keep, separated by commas.")
    ] = "pv,cart,fav,buy",
    json_output: JsonOption = False,
) -> None:
    """Prepare Taobao's UserBehavior (user, item, category, type, Unix seconds; no header; plain or gzip).

    Example: nann prepare userbehavior UserBehavior.csv --validation-users 10000 --test-users 10000
    """
    from ..training.data.user_behavior import read_user_behavior

    read = partial(read_user_behavior, files, behavior_types=_names(behavior_types), max_bad_share=max_bad_share)
    protocol = (min_behaviors, validation_users, test_users, seed, False)
    _prepare(read, "userbehavior", out, protocol, json_output)


@app.command("complete-journey")
def complete_journey(
    out: OutOption = None,
    validation_users: ValidationOption = 200,
    test_users: TestOption = 600,
    min_behaviors: MinBehaviorsOption = 10,
    seed: SeedOption = 0,
    with_profile: Annotated[
        bool, typer.Option("--with-profile", help="Use household demographics as user profile fields.")
    ] = False,
    json_output: JsonOption = False,
) -> None:
    """Prepare Complete Journey, a year of grocery baskets (simulated from real shopping patterns), from its package.

    Example: nann prepare complete-journey --with-profile
    """
    from ..training.data.complete_journey import read_complete_journey

    # All items of the shop stay in the corpus, even if every household that bought one is left out.
    protocol = (min_behaviors, validation_users, test_users, seed, True)
    _prepare(partial(read_complete_journey, with_profile=with_profile), "complete_journey", out, protocol, json_output)


@app.command("log")
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
        str, typer.Option(help="Categorical columns of --profile, separated by commas. Default: all.")
    ] = "",
    validation_users: ValidationShareOption = None,
    test_users: TestShareOption = None,
    min_behaviors: MinBehaviorsOption = 10,
    seed: SeedOption = 0,
    max_bad_share: MaxBadShareOption = 0.01,
    json_output: JsonOption = False,
) -> None:
    """Prepare any CSV (with a header; plain or gzip) or Parquet log by naming its columns.

    Example: nann prepare log events.parquet --user uid --item sku --time at --basket session_id --name shop
    """
    from ..training.data.custom_log import LogColumns, ProfileTable, read_log

    columns = LogColumns(user, item, time, category, basket)
    table = None if profile is None else ProfileTable(profile, profile_user or user, _names(profile_fields))
    mark = "\t" if separator in ("tab", "\\t") else separator
    read = partial(read_log, files, columns, name=name, separator=mark, profile=table, max_bad_share=max_bad_share)
    _prepare(read, name, out, (min_behaviors, validation_users, test_users, seed, False), json_output)


@app.command("synthetic")
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
    validation_users: ValidationShareOption = None,
    test_users: TestShareOption = None,
    min_behaviors: MinBehaviorsOption = 10,
    seed: Annotated[int, typer.Option(help="Random seed of the log and of the split.", min=0)] = 0,
    json_output: JsonOption = False,
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
        seed=seed,
    )
    protocol = (min_behaviors, validation_users, test_users, seed, False)
    _prepare(partial(synthetic_log, spec), spec.name, out, protocol, json_output)


def _names(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _prepare(
    read: Callable[[Path], InteractionLog],
    name: str,
    out: Path | None,
    protocol: tuple[int, int | None, int | None, int, bool],
    json_output: bool,
) -> None:
    from ..training.data.prepare import prepare
    from ..training.data.protocol import Protocol

    folder = out or DATA_FOLDER / name
    with console.status("Starting") as status:
        manifest = prepare(read, folder, Protocol(*protocol), lambda step: status.update(f"{step} ..."), name)
    _show(manifest, folder)
    if json_output:
        summary = {key: manifest[key] for key in ("name", "counts", "rows", "protocol")}
        print_json({"path": str(folder), **summary})


def _show(manifest: Mapping[str, Any], folder: Path) -> None:
    counts, rows = manifest["counts"], manifest["rows"]
    split = " / ".join(f"{counts[f'{name}_users']:,}" for name in ("train", "validation", "test"))
    lines = {
        "users to train / validate / test": split,
        "users left out": f"{counts['dropped_users']:,}",
        "items": f"{counts['items']:,}",
        "categories": f"{counts['categories']:,}",
        "behaviours": f"{counts['behaviors']:,}",
        "bad rows": f"{rows['bad']:,}",
    }
    if manifest["has_groups"]:
        lines["baskets"] = f"{counts['groups']:,}"
    if rows["cut_last_lines"]:
        lines["cut last lines"] = f"{rows['cut_last_lines']:,}"
    console.print(make_table(f"{manifest['name']} in {folder}", ("", ""), lines.items()))
    for example in rows["bad_examples"]:
        console.print(f"bad row: {example}", markup=False, highlight=False)
