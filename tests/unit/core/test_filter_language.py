"""The filter language: what is read, its normal form, its bounds, and what a mistake is told."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.filter_oracle import FILTERS, written

from nann.errors import FilterError, RequestError
from nann.filters import parse, where
from nann.filters.parser import MAX_DEPTH, MAX_LENGTH, MAX_TERMS, MAX_VALUES
from nann.filters.predicate import Comparison


@given(FILTERS)
def test_the_normal_form_reads_as_itself(filter_):
    once = parse(written(filter_))
    assert str(parse(str(once))) == str(once)
    assert parse(str(once)) == once
    assert hash(parse(str(once))) == hash(once)


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("price<5", "price < 5"),
        ("  Price >= 1.50 ", "Price >= 1.5"),
        ("a = 5.0 OR a = 5", "a = 5"),
        ("b = 1 and a = 1", "a = 1 and b = 1"),
        ("c = 1 and (b = 1 and (a = 1 and b = 1))", "a = 1 and b = 1 and c = 1"),
        ("a = 1 or b = 1 and c = 1", "a = 1 or b = 1 and c = 1"),
        ("(a = 1 or b = 1) and c = 1", "(a = 1 or b = 1) and c = 1"),
        ("not not a", "a = true"),
        ("not (a and b)", "not (a = true and b = true)"),
        ("a in (7, 3, 7)", "a in (3, 7)"),
        ("a in (3)", "a = 3"),
        ("a not in (3)", "a != 3"),
        ("a Between 1 And 2 And b", "a between 1 and 2 and b = true"),
        ("a = true and a = 1", "a = 1 and a = true"),
        ('"package size" = "4 \\"x\\" \\\\ 5"', '"package size" = "4 \\"x\\" \\\\ 5"'),
        ('"in" = 1', '"in" = 1'),
        ("größe > -1e3", "größe > -1000"),
        ("a = .5 and b = 1e300 and c = +7.", "a = 0.5 and b = 1e+300 and c = 7"),
        ("a = -0.0", "a = 0"),
        ('a = "line\nbreak"', 'a = "line\nbreak"'),
    ],
)
def test_normal_form(text, normal):
    assert str(parse(text)) == normal


def test_the_builder_says_what_the_text_says():
    built = (
        where("price").between(5, 20) & ~(where("tag") == "adult") & (where("n").is_in([3, 7]) | where("ok").is_true())
    )
    assert built == parse('price between 5 and 20 and not tag = "adult" and (n in (3, 7) or ok)')
    assert str(where("a") != 1) == "a != 1"
    assert str(where("a").not_in(["x", "y"])) == 'a not in ("x", "y")'
    assert str(where("a").is_false()) == "a = false"
    assert [str(each) for each in (where("a") < 1, where("a") <= 1, where("a") > 1, where("a") >= 1)] == [
        "a < 1", "a <= 1", "a > 1", "a >= 1"]  # fmt: skip
    assert str(where("a") == np.float64(2.5)) == "a = 2.5"
    assert str(where("a").is_in(np.array([2, 1]))) == "a in (1, 2)"
    assert str(where("a") == np.True_) == "a = true"
    assert str(where("not") == 'q"') == '"not" = "q\\""'
    assert repr(where("a") == 1) == "parse('a = 1')"


def test_a_built_filter_is_no_truth_value():
    with pytest.raises(TypeError, match="combine filters with &"):
        bool(where("a") == 1)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: where("a") == None, "got None; expected a number, text, True or False"),  # noqa: E711
        (lambda: where("a") == float("nan"), "got nan; expected a finite number"),
        (lambda: where("a") == 10**400, "got a number that is too large; expected a finite number"),
        (lambda: where("a").is_in([]), "got a in an empty list; expected a value"),
        (lambda: where("a") < "b", 'expected numbers with "<"'),
        (lambda: where("a").is_in(5), """where('a') got 5 with "in"; expected a list of values, as in [5]"""),
        (
            lambda: where("a").not_in("b"),
            """where('a') got 'b' with "not in"; expected a list of values, as in ['b']""",
        ),
        (lambda: where(3), "where got 3; expected the name of an attribute"),
    ],
)
def test_what_can_not_be_built(build, message):
    with pytest.raises(FilterError, match=re.escape(message)):
        build()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", 'position 1: got the end; expected the name of an attribute, "not" or "("'),
        ("  ", 'position 3: got the end; expected the name of an attribute, "not" or "("'),
        ("5 = a", 'position 1: got "5"; expected the name of an attribute, "not" or "("'),
        ("a = ", "position 5: got the end; expected a number, a text in double quotes, true or false"),
        ("a = b", 'position 5: got "b"; expected a number, a text in double quotes, true or false'),
        ("a == 1", 'position 4: got "="; expected a number'),
        (
            "a 5",
            'position 3: got "5"; expected an operator (= != < <= > >= in, not in, between), "and", "or" or the end',
        ),
        ("a = 1 b = 2", 'position 7: got "b"; expected "and", "or" or the end'),
        ("a = 1)", 'position 6: got ")"; expected "and", "or" or the end'),
        ("(a = 1", 'position 7: got the end; expected "and", "or" or ")"'),
        ("a in 3", 'position 6: got "3"; expected "(" and a list of values'),
        ("a in ()", 'position 7: got ")"; expected a number, a text'),
        ("a in (3 4)", 'position 9: got "4"; expected "," or ")"'),
        ("a not 3", 'position 7: got "3"; expected "in" after "not"'),
        ("a between 3 or 4", 'position 13: got "or"; expected "and" between the two numbers'),
        ('a < "x"', 'position 5: got "x"; expected a number with "<"'),
        ("a between true and 3", 'position 11: got "true"; expected a number with "between"'),
        ("a = 5x", 'position 5: got "5x"; expected a number such as 5, -0.5 or 1e3'),
        ("a = 1.2.3", 'position 5: got "1.2.3"; expected a number such as'),
        ("a = 1e999", "position 5: got inf; expected a finite number"),
        ("a = " + "9" * 400, "position 5: got inf; expected a finite number"),
        ("a = " + "9" * 310, "position 5: got a number that is too large; expected a finite number"),
        ("a = 'red'", 'position 5: got \'; expected texts in double quotes, as in color = "red"'),
        ("a = “red”", "position 5: got “; expected texts in double quotes"),
        ("a = 1 ; drop", "position 7: got ';'; expected a name, a value, an operator, a comma or a parenthesis"),
        ('a = "x', 'position 7: got the end within the text that begins at position 5; expected a closing "'),
        ('a = "x\\"', 'position 9: got the end within the text that begins at position 5; expected a closing "'),
        ('a = "x\\', 'position 8: got the end within the text that begins at position 5; expected a closing "'),
        ('a = "x\\n"', 'position 7: got \\n in a text; expected \\" or \\\\ after a backslash'),
        ("a = 1 and", "position 10: got the end; expected the name of an attribute"),
        ("and = 1", 'position 1: got "and"; expected the name of an attribute'),
        ("x" * 50 + " 5 " + "y" * 50, 'got "5"'),
        ("a " + "y" * 50, f'position 3: got "{"y" * 30}..."; expected an operator'),
    ],
)
def test_a_mistake_is_told_with_its_place(text, message):
    with pytest.raises(FilterError, match=re.escape(message)):
        parse(text)
    assert issubclass(FilterError, RequestError)


def test_bounds():
    deep = "(" * MAX_DEPTH + "a" + ")" * MAX_DEPTH
    assert str(parse(deep)) == "a = true"
    with pytest.raises(FilterError, match=f"position 33: got more than {MAX_DEPTH} levels"):
        parse(f"({deep})")
    with pytest.raises(FilterError, match=f"position 129: got more than {MAX_DEPTH} levels"):
        parse("not " * 4000 + "a")
    many = " or ".join(f"a = {n}" for n in range(MAX_TERMS))
    assert len(parse(many).parts) == MAX_TERMS
    with pytest.raises(FilterError, match=f"got more than {MAX_TERMS} comparisons; expected at most {MAX_TERMS}"):
        parse(f"{many} or b")
    values = ",".join(map(str, range(MAX_VALUES)))
    assert len(parse(f"a in ({values})").values) == MAX_VALUES
    with pytest.raises(FilterError, match="got a list of more than 1,000 values; expected at most 1,000"):
        parse(f"a in ({values},5)")
    assert parse("a" + " " * (MAX_LENGTH - 1)) == parse("a")
    with pytest.raises(FilterError, match="the filter has 16,385 characters; expected at most 16,384"):
        parse("a" + " " * MAX_LENGTH)


@given(
    st.text(max_size=30) | st.lists(st.sampled_from(['"', "\\", "a", "(", ")", " and ", "not ", "in", "1", ",", "="]))
)
def test_any_text_is_read_or_refused(parts):
    text = "".join(parts)
    try:
        assert parse(str(parse(text))) == parse(text)
    except FilterError as error:
        assert re.match(r"position \d+: got ", str(error))  # noqa: PT017


def test_a_place_in_the_text_is_kept():
    (_, second) = parse("a = 1 and  b = 2").parts
    assert isinstance(second, Comparison)
    assert second.position == 12
