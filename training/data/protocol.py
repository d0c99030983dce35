"""Evaluation protocols: which users are kept, and what of them is ground truth."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from nann.errors import ConfigError

from .times import parse_time

PAPER, LEAVE_ONE_OUT, TIME_SPLIT = "paper", "leave-one-out", "time-split"
ALL = "all"
"""Instead of a number of users: every one that has a ground truth."""


class ProtocolDefaults(NamedTuple):
    """What a protocol takes if nothing else is said."""

    min_behaviors: int
    exclude_history: bool


DEFAULTS = {
    PAPER: ProtocolDefaults(10, False),
    LEAVE_ONE_OUT: ProtocolDefaults(3, True),
    TIME_SPLIT: ProtocolDefaults(3, False),
}

TARGETS = ("validation", "test")
"""The splits with ground truth."""

NO_TARGET = -1


@dataclass(frozen=True)
class Protocol:
    """How users are kept and split.

    Attributes:
        min_behaviors: users with fewer behaviours are left out.
        validation_users, test_users: how many of each, or "all"; None: the protocol's default, at most 10,000 as in the
            paper.
        seed: random seed of the split.
        whole_corpus: keep all items of the log, not only those of the kept users.
        kind: "paper", "leave-one-out" or "time-split".
        split_time: of a time split: a date, a timestamp or seconds, as text; what is at or after it is ground truth.
        exclude_history: items of a user's history are neither answers nor ground truth.
        merge_repeats: a behaviour with the same item as the user's behaviour before it, or as another in its basket, is
            left out.

    Raises:
        ConfigError: if a number, the kind or the time is not valid.
    """

    min_behaviors: int = 10
    validation_users: int | str | None = None
    test_users: int | str | None = None
    seed: int = 0
    whole_corpus: bool = False
    kind: str = PAPER
    split_time: str | None = None
    exclude_history: bool = False
    merge_repeats: bool = False

    def __post_init__(self) -> None:
        for name, value, least in (
            ("min_behaviors", self.min_behaviors, 1),
            ("validation_users", self.validation_users, 0),
            ("test_users", self.test_users, 0),
            ("seed", self.seed, 0),
        ):
            users = name.endswith("_users")
            if value is None or (users and value == ALL):
                continue
            if isinstance(value, str) or value < least:
                expected = f"at least {least}, or all" if users else f"at least {least}"
                raise ConfigError(f"{name} is {value}; expected {expected}")
        if self.kind not in DEFAULTS:
            raise ConfigError(f"protocol is {self.kind!r}; expected one of {', '.join(DEFAULTS)}")
        if self.kind == PAPER and ALL in (self.validation_users, self.test_users):
            raise ConfigError(
                f"protocol {PAPER} with all users to validate or test on; expected a number: the others train"
            )
        if (self.kind == TIME_SPLIT) != (self.split_time is not None):
            given = "no time" if self.split_time is None else f"the time {self.split_time!r}"
            raise ConfigError(
                f"protocol {self.kind} with {given}; expected a time with {TIME_SPLIT}, and only with it: --split-time"
            )
        if self.split_time is not None and parse_time(self.split_time) is None:
            raise ConfigError(
                f"split time is {self.split_time!r}; expected a date such as 2024-01-31, "
                "an ISO 8601 timestamp or seconds since 1970"
            )

    @property
    def split_time_us(self) -> int | None:
        """The time of a time split in microseconds since 1970, UTC."""
        return None if self.split_time is None else parse_time(self.split_time)
