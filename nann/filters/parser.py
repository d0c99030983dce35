"""Reads a filter: `category in (3, 7) and price between 5 and 20 and not tag = "adult"`.

    expression = conjunction {"or" conjunction}
    conjunction = condition {"and" condition}
    condition = "not" condition | "(" expression ")" | comparison
    comparison = name | name operator value | name ["not"] "in" "(" value {"," value} ")"
               | name "between" number "and" number
    operator = "=" | "!=" | "<" | "<=" | ">" | ">="
    value = number | text | "true" | "false"

A name is a word, or in double quotes as a text is. The text may come from anyone: its length, depth, comparisons and
values have bounds.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from nann.errors import FilterError

from .predicate import KEYWORDS, LISTS, ORDERING, Comparison, Group, Predicate, Value, at, checked_value

MAX_LENGTH = 16_384
"""Characters of a filter."""
MAX_DEPTH = 32
"""How many parentheses and "not" may be open at a place."""
MAX_TERMS = 64
"""Comparisons of a filter."""
MAX_VALUES = 1_000
"""Values of a list."""

_TOKEN = re.compile(
    r"""(?P<space>\s+)
    |(?P<text>"(?:[^"\\]|\\["\\])*")
    |(?P<number>[-+]?\.?[0-9](?:[-+](?<=[eE].)|[\w.])*)
    |(?P<word>[^\W\d]\w*)
    |(?P<symbol>!=|<=|>=|[=<>(),])""",
    re.VERBOSE,
)
_NUMBER = re.compile(r"[-+]?(?:[0-9]+(\.[0-9]*)?|(\.[0-9]+))([eE][-+]?[0-9]+)?")
_SHOWN = 30
_END = "end"
_SYMBOLS = ("=", "!=", "<", "<=", ">", ">=")
_OPERATORS = "an operator (= != < <= > >= in, not in, between)"


@dataclass(frozen=True)
class _Token:
    """A piece of the text.

    Attributes:
        kind: "text", "number", "word", "symbol", or "end".
        text: as it is written; keywords in lower case.
        position: from 1.
    """

    kind: str
    text: str
    position: int

    def is_keyword(self, *words: str) -> bool:
        return self.kind == "word" and self.text in words

    def is_symbol(self, *symbols: str) -> bool:
        return self.kind == "symbol" and self.text in symbols


def parse(text: str) -> Predicate:
    """Reads a filter.

    Raises:
        FilterError: with the position, what came and what was expected.
    """
    if len(text) > MAX_LENGTH:
        raise FilterError(f"the filter has {len(text):,} characters; expected at most {MAX_LENGTH:,}")
    return _Parser(_tokens(text)).whole()


def _tokens(text: str) -> list[_Token]:
    tokens, start = [], 0
    while start < len(text):
        match = _TOKEN.match(text, start)
        if match is None:
            raise FilterError(_unreadable(text, start))
        kind = str(match.lastgroup)
        word = match.group().lower() if kind == "word" and match.group().lower() in KEYWORDS else match.group()
        if kind != "space":
            tokens.append(_Token(kind, word, start + 1))
        start = match.end()
    return [*tokens, _Token(_END, "the end", len(text) + 1)]


def _unreadable(text: str, start: int) -> str:
    if text[start] in "'\u2018\u2019\u201c\u201d":
        return f'{at(start + 1)}got {text[start]}; expected texts in double quotes, as in color = "red"'
    if text[start] != '"':
        return f"{at(start + 1)}got {text[start]!r}; expected a name, a value, an operator, a comma or a parenthesis"
    escape = re.compile(r'(?:[^"\\]|\\["\\])*').match(text, start + 1)
    place = escape.end() if escape else start
    if place < len(text) - 1:
        return f'{at(place + 1)}got {text[place : place + 2]} in a text; expected \\" or \\\\ after a backslash'
    return f'{at(len(text) + 1)}got the end within the text that begins at position {start + 1}; expected a closing "'


class _Parser:
    """Recursive descent over the tokens of one filter."""

    def __init__(self, tokens: list[_Token]) -> None:
        self._tokens = tokens
        self._next = 0
        self._terms = 0

    def whole(self) -> Predicate:
        predicate = self._expression(0)
        if self._token.kind != _END:
            raise self._unexpected('"and", "or" or the end')
        return predicate

    @property
    def _token(self) -> _Token:
        return self._tokens[self._next]

    def _take(self) -> _Token:
        token = self._token
        self._next += 1
        return token

    def _accept(self, *keywords: str) -> bool:
        found = self._token.is_keyword(*keywords)
        self._next += found
        return found

    def _require_symbol(self, symbol: str, expected: str) -> None:
        if not self._token.is_symbol(symbol):
            raise self._unexpected(expected)
        self._next += 1

    def _unexpected(self, expected: str) -> FilterError:
        token = self._token
        text = token.text if len(token.text) <= _SHOWN else f"{token.text[:_SHOWN]}..."
        shown = text if token.kind in (_END, "text") else f'"{text}"'
        return FilterError(f"{at(token.position)}got {shown}; expected {expected}")

    def _expression(self, depth: int) -> Predicate:
        parts = [self._conjunction(depth)]
        while self._accept("or"):
            parts.append(self._conjunction(depth))
        return Group.of("or", parts)

    def _conjunction(self, depth: int) -> Predicate:
        parts = [self._condition(depth)]
        while self._accept("and"):
            parts.append(self._condition(depth))
        return Group.of("and", parts)

    def _condition(self, depth: int) -> Predicate:
        token = self._token
        if not (token.is_keyword("not") or token.is_symbol("(")):
            return self._comparison()
        if depth == MAX_DEPTH:
            raise FilterError(
                f'{at(token.position)}got more than {MAX_DEPTH} levels of parentheses and "not"; '
                f"expected at most {MAX_DEPTH}"
            )
        if self._accept("not"):
            return ~self._condition(depth + 1)
        self._take()
        inner = self._expression(depth + 1)
        self._require_symbol(")", '"and", "or" or ")"')
        return inner

    def _comparison(self) -> Predicate:
        token = self._token
        if not (token.kind == "text" or (token.kind == "word" and token.text not in KEYWORDS)):
            raise self._unexpected('the name of an attribute, "not" or "("')
        self._terms += 1
        if self._terms > MAX_TERMS:
            raise FilterError(
                f"{at(token.position)}got more than {MAX_TERMS} comparisons; expected at most {MAX_TERMS}: "
                "a list, as in a in (1, 2), counts as one"
            )
        name, position = _unquoted(self._take()), token.position
        if self._token.is_symbol(*_SYMBOLS):
            operator = self._take().text
            return Comparison(name, operator, [self._value(operator)], position)
        if self._accept("between"):
            low = self._value("between")
            if not self._accept("and"):
                raise self._unexpected('"and" between the two numbers')
            return Comparison(name, "between", [low, self._value("between")], position)
        negated = self._accept("not")
        if self._accept("in"):
            return Comparison(name, LISTS[negated], self._list(), position)
        if negated:
            raise self._unexpected('"in" after "not"')
        if not (self._token.kind == _END or self._token.is_keyword("and", "or") or self._token.is_symbol(")")):
            raise self._unexpected(f'{_OPERATORS}, "and", "or" or the end')
        return Comparison(name, "=", [True], position, is_name_alone=True)

    def _list(self) -> list[Value]:
        self._require_symbol("(", '"(" and a list of values')
        values = [self._value("in")]
        while self._token.is_symbol(","):
            if len(values) == MAX_VALUES:
                raise FilterError(
                    f"{at(self._token.position)}got a list of more than {MAX_VALUES:,} values; "
                    f"expected at most {MAX_VALUES:,}: name a set of items with `nann filters set --ids`"
                )
            self._take()
            values.append(self._value("in"))
        self._require_symbol(")", '"," or ")"')
        return values

    def _value(self, operator: str) -> Value:
        token = self._token
        if token.kind == "number":
            if (match := _NUMBER.fullmatch(token.text)) is None:
                raise self._unexpected("a number such as 5, -0.5 or 1e3")
            self._take()
            whole = not any(match.groups())
            return checked_value(_integer(token) if whole else float(token.text), token.position)
        if operator in ORDERING:
            raise self._unexpected(f'a number with "{operator}"')
        if token.kind == "text":
            return _unquoted(self._take())
        if token.is_keyword("true", "false"):
            return self._take().text == "true"
        raise self._unexpected("a number, a text in double quotes, true or false")


def _integer(token: _Token) -> int | float:
    # Longer ones overflow a float in any case, and Python refuses to convert more than some thousand digits.
    return int(token.text) if len(token.text) <= _SHOWN * 12 else float(token.text)


def _unquoted(token: _Token) -> str:
    return re.sub(r"\\(.)", r"\1", token.text[1:-1]) if token.kind == "text" else token.text
