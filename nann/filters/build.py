"""Filters built in Python, for those who would rather not write text: `where("price") < 20`."""

from __future__ import annotations

from collections.abc import Iterable

from .predicate import Comparison, Predicate, Value


def where(attribute: str) -> Attribute:
    """An attribute to compare: `where("price").between(5, 20) & ~(where("tag") == "adult")`; `str()` gives the text."""
    return Attribute(attribute)


class Attribute:
    """An attribute of the items, whose comparisons are filters. A filter says what the text of the same form says."""

    __hash__ = None  # type: ignore[assignment]

    def __init__(self, name: str) -> None:
        self._name = name

    def __eq__(self, value: Value) -> Predicate:  # type: ignore[override]
        return Comparison(self._name, "=", [value])

    def __ne__(self, value: Value) -> Predicate:  # type: ignore[override]
        return Comparison(self._name, "!=", [value])

    def __lt__(self, value: float) -> Predicate:
        return Comparison(self._name, "<", [value])

    def __le__(self, value: float) -> Predicate:
        return Comparison(self._name, "<=", [value])

    def __gt__(self, value: float) -> Predicate:
        return Comparison(self._name, ">", [value])

    def __ge__(self, value: float) -> Predicate:
        return Comparison(self._name, ">=", [value])

    def between(self, low: float, high: float) -> Predicate:
        """From `low` to `high`, both included."""
        return Comparison(self._name, "between", [low, high])

    def is_in(self, values: Iterable[Value]) -> Predicate:
        """One of these values; of several values at least one is."""
        return self._listed("in", values)

    def not_in(self, values: Iterable[Value]) -> Predicate:
        """There is a value, and none of these."""
        return self._listed("not in", values)

    def is_true(self) -> Predicate:
        """A flag that is set."""
        return Comparison(self._name, "=", [True])

    def is_false(self) -> Predicate:
        """A flag that is not set."""
        return Comparison(self._name, "=", [False])

    def _listed(self, operator: str, values: Iterable[Value]) -> Predicate:
        return Comparison(self._name, operator, values)
