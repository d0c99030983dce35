"""What the page asks: whose history, and which search."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from nann.errors import RequestError
from nann.search_params import SearchOptions, check_names

MAX_ITEMS = 10_000
"""The longest history, and the most exclusions, that the page sends: those that the server takes."""
_KEYS = ("items", "user_id", "profile", "excluded", "parameters")


@dataclass(frozen=True)
class Asked:
    """One question of the page.

    Items are indices of the bundle: JavaScript's numbers do not hold every external id.

    Attributes:
        items: indices, oldest first.
        user_id: whose stored history comes before them; None: nobody's.
        profile: codes of the user profile; None: there is none.
        excluded: indices of items that may not be shown.
        options: of the search.
    """

    items: tuple[int, ...] = ()
    user_id: str | None = None
    profile: tuple[int, ...] | None = None
    excluded: tuple[int, ...] = ()
    options: SearchOptions = field(default_factory=SearchOptions)

    @classmethod
    def of_json(cls, body: Any, item_count: int) -> Asked:
        """Reads the page's JSON, for a bundle of N items.

        Raises:
            RequestError: naming what came and what was expected.
        """
        if not isinstance(body, Mapping) or not set(body) <= set(_KEYS):
            raise RequestError(
                f"the question is {_short(body)}; expected a JSON object with some of {', '.join(_KEYS)}"
            )
        items, excluded = (_whole(name, body.get(name) or [], 0, item_count - 1) for name in ("items", "excluded"))
        for name, listed in (("items", items), ("excluded", excluded)):
            if len(listed) > MAX_ITEMS:
                raise RequestError(f"{name} holds {len(listed):,} items; expected at most {MAX_ITEMS:,}")
        user_id, profile = body.get("user_id") or None, body.get("profile")
        if user_id is not None and not (isinstance(user_id, str) and _is_unicode(user_id)):
            raise RequestError(f"user_id is {_short(user_id)}; expected text")
        return cls(
            items,
            user_id,
            None if profile is None else _whole("profile", profile, 0, 2**31 - 1),
            excluded,
            options_of(body.get("parameters") or {}),
        )


def options_of(parameters: Any) -> SearchOptions:
    """The options that a JSON object names.

    Raises:
        RequestError: if it is none, or names a parameter that there is not or a value that can't be.
    """
    if not isinstance(parameters, Mapping):
        raise RequestError(f"parameters is {_short(parameters)}; expected a JSON object")
    check_names(sorted(parameters))
    return SearchOptions.read(parameters)


def _whole(name: str, values: Any, low: int, high: int) -> tuple[int, ...]:
    if not isinstance(values, Sequence) or isinstance(values, str):
        raise RequestError(f"{name} is {_short(values)}; expected a list of whole numbers")
    for value in values:
        if type(value) is not int or not low <= value <= high:
            raise RequestError(f"{name} holds {_short(value)}; expected whole numbers from {low} to {high}")
    return tuple(values)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _is_unicode(text: str) -> bool:
    """Whether it can be sent: JSON may hold halves of a character."""
    return not any("\ud800" <= character <= "\udfff" for character in text)
