"""The parser of ChangeLogs, on an invented one and on generated ones."""

from __future__ import annotations

from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples.changelog_format import day_of, decode, files_of, parse

INVENTED = """\
2004-03-07  Ada Example  <ada@example.org>
\t    Bob van Example  <bob@mail.example.org>

\tPR tools/123
\t* alloc.c (reserve, release): Do not
\tforget * this.
\t* config/{arm, mips}.c, ../include/alloc.h (reserve)
\t(release): New.  See also other.c: it is not changed.
\t* table.[ch] [HAVE_TABLE] (lookup (int)): Likewise.

\tBackported from the branch
\t2003-12-31  Cyd Example  <cyd@example.org>

\t* a-very-long-folder/
\tname.c: Likewise.

Sat Nov 12 10:11:12 1994  Ada Example  (ada at example)

\t* Makefile.in, configure, alloc.h: Regenerate.
\t* tests/mips@odd.d: New test.
\t* ../../outside.c: Not in this tree.
\t* Everything: works again.

Mon, 7 Nov 1994  <nobody@example.org>
Mon Nov 7 12:00 MET DST 1994  ADA  EXAMPLE <other@example.org>
\t* alloc.c: Two headers for one entry.

2004-13-01  Ada Example  <ada@example.org>

\t* lost.c: The day above is not valid.

Copyright (C) 2004 Example

\t* kept-out.c: Nor is there one here.
"""
ADA, BOB, NOBODY = "ada example", "bob van example", "nobody@example.org"


def changes_of(text: str, folder: str = "lib") -> list[tuple[date, tuple[str, ...], str]]:
    return [(c.day, c.developers, c.path) for c in parse(text, folder, lambda name: name).changes]


def test_an_invented_changelog():
    first, second, third = date(2004, 3, 7), date(1994, 11, 12), date(1994, 11, 7)
    both, paths = (ADA, BOB), ("lib/alloc.c", "lib/config/arm.c", "lib/config/mips.c", "include/alloc.h")
    paths += ("lib/table.c", "lib/table.h", "lib/a-very-long-folder/name.c")
    regenerated = ("lib/Makefile.in", "lib/configure", "lib/alloc.h", "lib/tests/mips@odd.d", "lib/Everything")
    assert changes_of(INVENTED) == [
        *((first, both, path) for path in paths),
        *((second, (ADA,), path) for path in regenerated),
        (third, (NOBODY, ADA), "lib/alloc.c"),
    ]


def test_lines_that_were_not_understood():
    lines = INVENTED.splitlines()
    found = [lines[number - 1].strip() for number in parse(INVENTED, "lib", str.upper).not_understood]
    assert found == [
        "* ../../outside.c: Not in this tree.",
        "2004-13-01  Ada Example  <ada@example.org>",
        "* lost.c: The day above is not valid.",
        "* kept-out.c: Nor is there one here.",
    ]


@pytest.mark.parametrize(
    ("header", "day"),
    [
        ("2004-3-7  Ada", date(2004, 3, 7)),
        ("2004/03/07 Ada", date(2004, 3, 7)),
        ("2004-03-07 12:30  Ada", date(2004, 3, 7)),
        ("Sun Mar  7 2004  Ada", date(2004, 3, 7)),
        ("Sun Mar  7 09:10:11 EST 2004  Ada", date(2004, 3, 7)),
        ("Sunday, March 7, 2004 Ada", date(2004, 3, 7)),
        ("Sun, 07 Mar 2004 Ada", date(2004, 3, 7)),
        ("7-Mar-2004 Ada", date(2004, 3, 7)),
        ("2004-02-30  Ada", None),
        ("1804-03-07  Ada", None),
        ("20040-03-07  Ada", None),
        ("Sun Mar  7  Ada", None),
    ],
)
def test_days_of_headers(header, day):
    assert day_of(header) == (day, "Ada" if day else "")


@pytest.mark.parametrize(
    ("entry", "files"),
    [
        ("a.c: Fix.", ["a.c"]),
        ("a.c (f), b.c (g) <case X>: Fix.", ["a.c", "b.c"]),
        ("a.c b.c and c.c: Fix.", ["a.c", "b.c", "c.c"]),
        ("a.c Fix a slip in b.c", ["a.c"]),
        ("x/{a,b}/{c,d}.h: Fix.", ["x/a/c.h", "x/a/d.h", "x/b/c.h", "x/b/d.h"]),
        ("a.c (f: Unclosed.", ["a.c"]),
        ('`a.c\', "b.c": Fix.', ["a.c", "b.c"]),
        ("README: Fix.", ["README"]),
        ("README Fix", []),
        ("*.c, config/*/x.h: Fix.", []),
        ("All files: Fix.", []),
        ("Ada Example <ada@example.org>: Thanks.", []),
        ("ada@example.org: Thanks.", []),
    ],
)
def test_files_of_entries(entry, files):
    assert list(files_of(entry)) == files


def test_each_line_has_its_encoding():
    assert decode("Zoë\n".encode() + "Zoë\r\n".encode("latin-1")) == "Zoë\nZoë\r\n"


words = st.text("abcxyz", min_size=1, max_size=5)
files = st.builds("{}/{}.{}".format, words, words, st.sampled_from(("c", "h", "texi", "cc")))
names = st.builds("{} {}".format, words, words)
entries = st.lists(st.tuples(files, st.booleans()), min_size=1, max_size=4)
days = st.dates(date(1988, 1, 1), date(2022, 12, 31))
blocks = st.tuples(
    days, st.lists(names, min_size=1, max_size=3, unique=True), st.lists(entries, min_size=1, max_size=3)
)


def written(blocks, modern: bool) -> str:
    """A ChangeLog as an editor writes it; functions stand behind some files, and long lists of files go on."""
    text = ""
    for day, developers, block in blocks:
        first, *others = [f"{name}  <{name.replace(' ', '.')}@example.org>" for name in developers]
        text += f"{day.isoformat() if modern else day.strftime('%a %b %d 12:00:00 %Y')}  {first}\n"
        text += "".join(f"\t    {other}\n" for other in others) + "\n"
        for entry in block:
            text += "\t* " + ",\n\t".join(file + " (f, g)" * function for file, function in entry) + ": Change.\n"
        text += "\n"
    return text


@given(st.lists(blocks, max_size=4), st.booleans())
def test_what_was_written_is_read(blocks, modern):
    expected = [
        (day, tuple(developers), f"lib/{file}")
        for day, developers, block in blocks
        for entry in block
        for file, _ in entry
    ]
    text = written(blocks, modern)
    assert changes_of(text) == expected
    assert parse(text, "lib", str).not_understood == []


@given(st.lists(st.one_of(st.text(max_size=40), st.sampled_from(INVENTED.splitlines())), max_size=12).map("\n".join))
def test_any_text_is_read_and_its_mail_addresses_are_no_files(text):
    parsed = parse(text, "lib", lambda name: "someone")
    assert all(change.developers == ("someone",) for change in parsed.changes)
    assert not any("@example.org" in change.path or ".." in change.path.split("/") for change in parsed.changes)
    assert all(1 <= number <= text.count("\n") + 1 for number in parsed.not_understood)


@given(st.binary(max_size=60))
def test_any_bytes_are_text(content):
    assert decode(content).count("\n") == content.count(b"\n")
