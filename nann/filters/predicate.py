"""A filter as a tree. Trees that mean the same by order, repetition or notation alone have the same text.

Predicate
+-- Comparison   attribute, operator, values
+-- Negation     not ...
+-- Group        ... and ..., ... or ...
"""

from __future__ import annotations

import math
import numbers
import re
from collections.abc import Iterable

import numpy as np

from nann.errors import FilterError

Value = bool | int | float | str

ORDERING = ("<", "<=", ">", ">=", "between")
"""Operators of numbers alone."""
NEGATED = ("!=", "not in")
LISTS = ("in", "not in")
KEYWORDS = ("and", "or", "not", "in", "between", "true", "false")

_NAME = re.compile(r"[^\W\d]\w*")
_SINGLE = {"in": "=", "not in": "!="}
_EXACT = 2**53
"""Below it every whole float has one decimal form."""


class Predicate:
    """A condition on an item. `&`, `|` and `~` combine conditions.

    Attributes:
        text: the normal form, which `parse` reads; predicates with the same text are equal.
    """

    def __init__(self, text: str) -> None:
        self.text = text

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return f"parse({self.text!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Predicate) and self.text == other.text

    def __hash__(self) -> int:
        return hash(self.text)

    def __and__(self, other: Predicate) -> Predicate:
        return Group.of("and", (self, other))

    def __or__(self, other: Predicate) -> Predicate:
        return Group.of("or", (self, other))

    def __invert__(self) -> Predicate:
        return self.part if isinstance(self, Negation) else Negation(self)

    def __bool__(self) -> bool:
        raise TypeError("a filter is neither true nor false by itself; combine filters with &, | and ~ in parentheses")


class Comparison(Predicate):
    """An attribute compared with values.

    Attributes:
        attribute: its name.
        operator: one of = != < <= > >= in, not in, between.
        values: one; two for "between"; for "in" and "not in" at least two, in a fixed order and without repetition.
        position: where it begins in the filter's text, from 1; None if it comes from no text.
        is_name_alone: it was written without operator and value, as a flag is.

    Raises:
        FilterError: for no value at all, one that is no `Value`, and an operator of numbers with another value.
    """

    def __init__(
        self,
        attribute: str,
        operator: str,
        values: Iterable[object],
        position: int | None = None,
        *,
        is_name_alone: bool = False,
    ) -> None:
        found = tuple(checked_value(value, position) for value in values)
        if not found:
            raise FilterError(f"{at(position)}got {name_text(attribute)} {operator} an empty list; expected a value")
        if operator in ORDERING and not all(is_number(value) for value in found):
            raise FilterError(f'{at(position)}got {found!r}; expected numbers with "{operator}"')
        if operator in LISTS:
            found = tuple({value_text(value): value for value in sorted(found, key=value_text)}.values())
            if len(found) == 1:
                operator = _SINGLE[operator]
        self.attribute = attribute
        self.operator = operator
        self.values = found
        self.position = position
        self.is_name_alone = is_name_alone
        texts = [value_text(value) for value in found]
        listed = f"({', '.join(texts)})" if operator in LISTS else " and ".join(texts)
        super().__init__(f"{name_text(attribute)} {operator} {listed}")


class Negation(Predicate):
    """What does not match `part`."""

    def __init__(self, part: Predicate) -> None:
        self.part = part
        super().__init__(f"not ({part})" if isinstance(part, Group) else f"not {part}")


class Group(Predicate):
    """What matches all `parts` ("and") or one of them ("or"): at least two, in a fixed order and without repetition."""

    def __init__(self, operator: str, parts: tuple[Predicate, ...]) -> None:
        self.operator = operator
        self.parts = parts
        super().__init__(f" {operator} ".join(f"({part})" if _is_or(part) else str(part) for part in parts))

    @classmethod
    def of(cls, operator: str, parts: Iterable[Predicate]) -> Predicate:
        """The parts combined, those of groups with the same operator taken singly; one part is itself."""
        flat: dict[str, Predicate] = {}
        for part in parts:
            same = part.parts if isinstance(part, Group) and part.operator == operator else (part,)
            flat.update({each.text: each for each in same})
        unique = tuple(flat[text] for text in sorted(flat))
        return unique[0] if len(unique) == 1 else cls(operator, unique)


def _is_or(part: Predicate) -> bool:
    """Whether it needs parentheses within a group; "and" binds closer than "or"."""
    return isinstance(part, Group) and part.operator == "or"


def at(position: int | None) -> str:
    """The beginning of a message about a place in a filter's text."""
    return "" if position is None else f"position {position}: "


def checked_value(value: object, position: int | None = None) -> Value:
    """A value as the language has it; whole floats become ints, as they are written.

    Raises:
        FilterError: if it is of another type, or a number that is not finite.
    """
    if type(value) is int and -_EXACT < value < _EXACT:  # most values, and lists may be long
        return value
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    if isinstance(value, str):
        return str(value)
    if not isinstance(value, numbers.Real):
        raise FilterError(f"{at(position)}got {value!r}; expected a number, text, True or False")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        shown = str(value) if isinstance(value, float) else "a number that is too large"
        raise FilterError(f"{at(position)}got {shown}; expected a finite number")
    if isinstance(value, numbers.Integral):
        return int(value)
    return int(number) if number.is_integer() and abs(number) < _EXACT else number


def is_number(value: Value) -> bool:
    """Whether a value is a number; true and false are none."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def value_text(value: Value) -> str:
    """A value as it is written in a filter."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return _quoted(value) if isinstance(value, str) else repr(value)


def name_text(name: str) -> str:
    """An attribute's name as it is written in a filter: in quotes if it is no plain word."""
    return name if _NAME.fullmatch(name) and name.lower() not in KEYWORDS else _quoted(name)


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
