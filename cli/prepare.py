"""`nann prepare`: from an interaction log to a prepared data set folder."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .prepare_log import log
from .prepare_output import DATA_FOLDER, FilesArgument, MaxBadShareOption, OutOption, names_of, write
from .protocol_options import protocol_of, with_protocol_options
from .support import JsonOption

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

app.command("log")(log)


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

    read = partial(read_user_behavior, files, behavior_types=names_of(behavior_types), max_bad_share=max_bad_share)
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


def _prepare(
    read: Callable[[Path], InteractionLog],
    name: str,
    out: Path | None,
    protocol: Protocol,
    json_output: bool,
) -> None:
    from ..training.data.prepare import prepare

    folder = out or DATA_FOLDER / name
    write(lambda step: prepare(read, folder, protocol, step, name), folder, json_output)
