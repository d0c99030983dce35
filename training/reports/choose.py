"""What `--only` names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

from nann.errors import ConfigError


class Named(Protocol):
    """A study or a benchmark."""

    @property
    def name(self) -> str:
        """What `--only` takes."""


NamedT = TypeVar("NamedT", bound=Named)


def chosen(only: str | None, known: Sequence[NamedT]) -> list[NamedT]:
    """Those that a comma-separated list names, in the order of `known`; all without one.

    Raises:
        ConfigError: if one of the names is none.
    """
    if only is None:
        return list(known)
    wanted = [name.strip() for name in only.split(",")]
    names = [one.name for one in known]
    unknown = [name for name in wanted if name not in names]
    if unknown:
        raise ConfigError(f'--only has "{unknown[0]}"; expected some of {", ".join(names)}')
    return [one for one in known if one.name in wanted]
