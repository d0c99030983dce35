"""The options of `nann prepare` that say which users are kept and how they are split."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .support import Command, with_options

if TYPE_CHECKING:
    from ..training.data.protocol import Protocol


class ProtocolKind(str, Enum):
    """Names of the protocols, as `training/data/protocol.py` has them."""

    paper = "paper"
    leave_one_out = "leave-one-out"
    time_split = "time-split"


_PANEL = "Protocol"
_USERS = "NUMBER|all"
_USERS_HELP = "How many random users to {} on. Default: a tenth{}, at most 10,000."
_OPTIONS: dict[str, Any] = {
    "protocol": Annotated[
        ProtocolKind,
        typer.Option(
            help="What is ground truth. paper: of some users the middle behaviour or basket; all others train. "
            "leave-one-out: of each user the last one, and of some the one before it to validate on; the rest trains. "
            "time-split: all from --split-time on; what was before trains, and of some users the last before to "
            "validate on.",
            rich_help_panel=_PANEL,
        ),
    ],
    "split_time": Annotated[
        str | None,
        typer.Option(
            help="Time of a time split: a date, an ISO 8601 timestamp (UTC if it names no zone) or seconds.",
            rich_help_panel=_PANEL,
        ),
    ],
    "validation_users": Annotated[
        str | None, typer.Option(help=_USERS_HELP.format("validate", ""), metavar=_USERS, rich_help_panel=_PANEL)
    ],
    "test_users": Annotated[
        str | None,
        typer.Option(
            help=_USERS_HELP.format("test", " with protocol paper, all with the others"),
            metavar=_USERS,
            rich_help_panel=_PANEL,
        ),
    ],
    "min_behaviors": Annotated[
        int | None,
        typer.Option(
            help="Leave out users with fewer behaviours. Default: 10 with protocol paper, else 3.",
            min=1,
            rich_help_panel=_PANEL,
        ),
    ],
    "exclude_history": Annotated[
        bool | None,
        typer.Option(
            "--exclude-history/--include-history",
            help="Whether items that a user knows are left out of answers and ground truth. "
            "Default: out with leave-one-out, in with the others.",
            show_default=False,
            rich_help_panel=_PANEL,
        ),
    ],
    "merge_repeats": Annotated[
        bool,
        typer.Option(
            "--merge-repeats",
            help="Leave out a behaviour with the same item as the one before it, or as another in its basket.",
            rich_help_panel=_PANEL,
        ),
    ],
    "seed": Annotated[int, typer.Option(help="Random seed of the split.", min=0, rich_help_panel=_PANEL)],
}
_DEFAULTS: dict[str, Any] = {
    **dict.fromkeys(_OPTIONS),
    "protocol": ProtocolKind.paper,
    "merge_repeats": False,
    "seed": 0,
}


def with_protocol_options(
    validation_users: int | None = None, test_users: int | None = None
) -> Callable[[Command], Command]:
    """Replaces a command's `**` argument by the options of the protocol, with these numbers of users as defaults."""
    users = {"validation_users": validation_users, "test_users": test_users}
    defaults = {**_DEFAULTS, **{name: None if count is None else str(count) for name, count in users.items()}}
    return with_options({name: (annotation, defaults[name]) for name, annotation in _OPTIONS.items()})


def protocol_of(options: dict[str, Any], *, whole_corpus: bool = False) -> Protocol:
    """The protocol that the options ask for.

    Raises:
        ConfigError: if they do not fit together.
    """
    from ..training.data.protocol import DEFAULTS, Protocol

    kind, defaults = options["protocol"].value, DEFAULTS[options["protocol"].value]
    least, excludes = options["min_behaviors"], options["exclude_history"]
    return Protocol(
        min_behaviors=defaults.min_behaviors if least is None else least,
        validation_users=_users(options["validation_users"]),
        test_users=_users(options["test_users"]),
        seed=options["seed"],
        whole_corpus=whole_corpus,
        kind=kind,
        split_time=options["split_time"],
        exclude_history=defaults.exclude_history if excludes is None else excludes,
        merge_repeats=options["merge_repeats"],
    )


def _users(text: str | None) -> int | str | None:
    """A number if it is one; the protocol refuses any other word than "all"."""
    return int(text) if text is not None and text.lstrip("-").isdecimal() else text
