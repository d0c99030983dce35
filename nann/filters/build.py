"""Filters built in Python, for those who would rather not write text: `where("price") < 20`."""

from __future__ import annotations

from collections.abc import Iterable

from nann.errors import FilterError

from .predicate import Comparison, Predicate, Value


def where(attribute: str) -> Attribute:
    """An attribute to compare: `where("price").between(5, 20) & ~(where("tag") == "adult")`; `str()` gives the text.

    Raises:
        FilterError: if the name is no text; from a comparison, if it is none that a filter may have.
    """
    if not isinstance(attribute, str):
        raise FilterError(f"where got {attribute!r}; expected the name of an attribute")
    return Attribute(attribute)


class Attribute:
    """An attribute of the items, whose comparisons are filters. A filter says what the text of the same form says."""

    __hash__ = None  # type: ignore[assignment]

    def __init__(self, name: str) -> None:
        self._name = name

    def __repr__(self) -> str:
        return f"where({self._name!r})"

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
        if isinstance(values, str) or not isinstance(values, Iterable):
            raise FilterError(
                f'{self!r} got {values!r} with "{operator}"; expected a list of values, as in [{values!r}]'
            )
        return Comparison(self._name, operator, values)
