"""The ChangeLog format of GNU: who changed which file on which day.

A header names the day and the developers, each entry below it the files, relative to the folder of the ChangeLog:

    2004-03-07  Ada Example  <ada@example.org>
                Bob Example  <bob@example.org>

            * alloc.c, alloc.h (reserve): New function.
            * config/{arm,mips}.c (reserve): Likewise.

Headers before 1998 are like `Sat Nov 12 10:11:12 1994  Ada Example  (ada@example.org)`.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import date

FIRST_YEAR, LAST_YEAR = 1985, 2035
"""A day outside these years is a slip of the pen."""

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_MONTH = r"(?P<month>jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*\.?"
_WEEKDAY = r"(?:mon|tue|wed|thu|fri|sat|sun)[a-z]*\.?,?\s+"
_CLOCK = r"(?:\d\d?:\d\d(?::\d\d)?,?\s+)?(?:[ap]m\s+)?(?:\(?[a-z]{2,5}(?:[-+]?\d{1,4})?\)?\s+){0,2}?"
_DAYS = tuple(
    re.compile(pattern + r"(?!\d)[,\s]*(?P<rest>.*)", re.IGNORECASE)
    for pattern in (
        r"(?P<year>\d{4})[-/](?P<month>\d{1,2})[-/](?P<day>\d{1,2})",
        rf"(?:{_WEEKDAY})?{_MONTH}\s+(?P<day>\d\d?),?\s+{_CLOCK}(?P<year>\d{{4}})",
        rf"(?:{_WEEKDAY})?(?P<day>\d\d?)[-\s]+{_MONTH}[-\s]+(?P<year>\d{{4}})",
    )
)
_BEGINS_LIKE_A_DAY = re.compile(rf"\d|{_WEEKDAY}|{_MONTH}\s+\d", re.IGNORECASE)
_TIME_OF_DAY = re.compile(r"\d\d?:\d\d(?::\d\d)?\s*")
_DEVELOPER = re.compile(r"([^<>()]*?)\s*[<(]([^<>()]*@[^<>()]*)[>)]")
_CO_AUTHOR = re.compile(r"\s+[^*\s\d][^*:<(]*?\s+[<(][^<>()\s]+@[^<>()\s]+[>)]\s*$")
_ENTRY = re.compile(r"\s*\*\s+(\S.*)")
_ASIDE = re.compile(r"\([^()]*\)|\[[^\[\]]*\]|<[^<>]*>")
_BRACES = re.compile(r"\{([^{}]*)\}")
_ENDINGS = re.compile(r"\.\[([a-z]{2,4})\]")  # target.[ch] is target.c and target.h
# No mail address ends in one letter, and some tests of gas are called like mips32r2@isa-override-1.d.
_FILE = re.compile(r"[\w.+#~=%-]+(?:/[\w.+#~=%-]+)*(?:@[\w.+-]+\.[a-z])?", re.ASCII)
_LOOKS_LIKE_A_FILE = re.compile(r".*(?:/|\.[A-Za-z]).*")


@dataclass(frozen=True)
class Change:
    """A file that some developers changed on a day.

    Attributes:
        day: the day of the header.
        developers: what `identify` made of each.
        path: path of the file in the source tree.
    """

    day: date
    developers: tuple[str, ...]
    path: str


@dataclass
class Parsed:
    """What a ChangeLog says, and the numbers (from 1) of the lines that were not understood."""

    changes: list[Change] = field(default_factory=list)
    not_understood: list[int] = field(default_factory=list)


def decode(content: bytes) -> str:
    """UTF-8 where a line is UTF-8, else Latin-1: one ChangeLog may hold both."""
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        return "\n".join(map(_decode_line, content.split(b"\n")))


def parse(text: str, folder: str, identify: Callable[[str], str]) -> Parsed:
    """Reads a ChangeLog.

    Args:
        text: the whole file.
        folder: the ChangeLog's folder in the source tree, which its paths are relative to.
        identify: gives what stands for a developer in the result, from the name in a header (from the mail address,
            where there is no name). The name itself goes nowhere else.
    """
    reader = _Reader(folder, identify)
    for number, line in enumerate(text.split("\n"), start=1):
        reader.read(number, line)
    reader.close()
    return reader.parsed


class _Reader:
    """Reads line by line: what the last header said, and the lines of the entry that is open."""

    def __init__(self, folder: str, identify: Callable[[str], str]) -> None:
        self.parsed = Parsed()
        self._folder = folder
        self._identify = identify
        self._day: date | None = None
        self._developers: tuple[str, ...] = ()
        self._in_header = False
        self._entry: list[str] = []
        self._entry_number = 0

    def read(self, number: int, line: str) -> None:
        if not line or line.isspace():
            self.close()
        elif not line[0].isspace() and line[0] != "*":
            self.close()
            self._read_header(number, line)
        elif self._in_header and _CO_AUTHOR.fullmatch(line):
            self._add(line)
        else:
            self._in_header = False
            if found := _ENTRY.match(line):
                self.close()
                self._entry, self._entry_number = [found[1]], number
            elif self._entry:
                self._entry.append(line)

    def close(self) -> None:
        """Ends the open entry, if there is one."""
        if not self._entry:
            return
        changes = list(self._changes())
        self.parsed.changes += changes
        if not changes:
            self.parsed.not_understood.append(self._entry_number)
        self._entry = []

    def _changes(self) -> Iterator[Change]:
        if not (self._day and self._developers):
            return
        for file in files_of(_joined(self._entry)):
            path = posixpath.normpath(posixpath.join(self._folder, file))
            if path.split("/")[0] not in (".", ".."):  # else it is the tree, or outside of it
                yield Change(self._day, self._developers, path)

    def _read_header(self, number: int, line: str) -> None:
        if not _BEGINS_LIKE_A_DAY.match(line):
            return  # a remark, such as the copyright notice at the end
        day, rest = day_of(line)
        if not (self._in_header and day == self._day):
            self._day, self._developers = day, ()
        self._in_header = day is not None
        self._add(rest)
        if not day:
            self.parsed.not_understood.append(number)

    def _add(self, text: str) -> None:
        found = [name.strip(" ,;&\t\"'") or mail for name, mail in _DEVELOPER.findall(text)]
        names = found or [re.split("[<(]", text)[0]]
        for name in filter(None, map(_plain, names)):
            who = self._identify(name)
            if who not in self._developers:
                self._developers += (who,)


def day_of(line: str) -> tuple[date | None, str]:
    """The day at the beginning of a header, and what follows it; None: there is no valid day."""
    for pattern in _DAYS:
        if found := pattern.match(line):
            month = found["month"].lower()
            number = int(month) if month.isdigit() else _MONTHS.index(month[:3]) + 1
            try:
                day = date(int(found["year"]), number, int(found["day"]))
            except ValueError:
                return None, ""
            if FIRST_YEAR <= day.year <= LAST_YEAR:
                return day, _TIME_OF_DAY.sub("", found["rest"], count=1)
    return None, ""


def files_of(entry: str) -> Iterator[str]:
    """The files that an entry names before its colon, as in `a.c, {b,c}.h (function): What changed`."""
    entry = _ENDINGS.sub(lambda found: ".{" + ",".join(found[1]) + "}", entry)
    entry = _BRACES.sub(lambda found: re.sub(r"\s*,\s*", ",", found[0]), entry)
    while (bare := _ASIDE.sub(" ", entry)) != entry:
        entry = bare
    names, colon, _ = re.split(r"[(\[]", entry)[0].partition(":")
    for part in re.split(r"[,;&](?![^{]*\})", names):
        words = [word.strip("`'\"") for word in part.split() if word not in ("and", "*")]
        alone = bool(colon) and len(words) == 1
        for word in words:
            files = list(_alternatives(word.removesuffix(".")))
            if not all(_FILE.fullmatch(file) and (alone or _LOOKS_LIKE_A_FILE.fullmatch(file)) for file in files):
                break
            yield from files


def _alternatives(text: str) -> Iterator[str]:
    """Expands braces as a shell does: `{a,b}.c` is `a.c` and `b.c`."""
    found = _BRACES.search(text)
    if not found:
        yield text
        return
    for choice in found[1].split(","):
        yield from _alternatives(text[: found.start()] + choice + text[found.end() :])


def _joined(lines: list[str]) -> str:
    """The entry in one line; a path that is cut after a slash becomes one again."""
    return re.sub(r"(?<=\w/) (?=\w)", "", " ".join(line.strip() for line in lines))


def _plain(name: str) -> str:
    return " ".join(name.split()).strip(" .,").casefold()


def _decode_line(line: bytes) -> str:
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError:
        return line.decode("latin-1")
