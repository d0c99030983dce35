"""A report and its parts: what each part measures and says, and the two files that hold them all."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, ParamSpec, TypeVar

from nann.durable_files import write_json, write_text
from nann.errors import ConfigError

from .machine import in_words
from .store import Json

Run = ParamSpec("Run")


def _nothing(result: Json, **about: Json) -> dict[str, Json]:
    return {}


@dataclass(frozen=True)
class Part(Generic[Run]):
    """One part of a report: a measurement, and pure functions of its result.

    Attributes:
        name: what `--only` takes.
        title: heading in the report.
        run: gives the result, JSON-able: fractions as fractions, times in ms.
        markdown: the result as text and tables, without the heading and the plots.
        plots: file name -> (result, path) writes that PNG.
        headline: result -> keys at the top of the JSON file; it also gets what `Measuring.about` holds, by name.
    """

    name: str
    title: str
    run: Callable[Run, Json]
    markdown: Callable[[Json], str]
    plots: Mapping[str, Callable[[Json, Path], None]] = field(default_factory=dict)
    headline: Callable[..., dict[str, Json]] = _nothing


PartT = TypeVar("PartT", bound=Part[...])


@dataclass(frozen=True)
class Report(Generic[PartT]):
    """A kind of report: JSON and Markdown about the same parts.

    Attributes:
        results_file: name of the JSON file.
        text_file: name of the Markdown file.
        parts: all of them, in the order of the Markdown.
        word: what a part is called in progress lines.
        introduction: body of the JSON file -> what the Markdown starts with.
        section: key of the JSON file that holds `{name of a part: {provenance, result, ...}}`; None = each result
            stands by itself under its part's name.
        details: provenance -> what the line below a part says besides command, machine, versions and date.
        repeated: keys of the last provenance that also stand at the top of the JSON file.
        command: command that takes `--only`.
    """

    results_file: str
    text_file: str
    parts: tuple[PartT, ...]
    word: str
    introduction: Callable[[Json], str]
    section: str | None = None
    details: Callable[[Json], list[str]] = lambda provenance: []
    repeated: tuple[str, ...] = ()
    command: str = ""

    def chosen(self, only: str | None) -> list[PartT]:
        """The parts that a comma-separated list names, in the order of the report; all without one.

        Raises:
            ConfigError: if one of the names is none.
        """
        if only is None:
            return list(self.parts)
        wanted = [name.strip() for name in only.split(",")]
        names = [part.name for part in self.parts]
        unknown = [name for name in wanted if name not in names]
        if unknown:
            raise ConfigError(f'--only has "{unknown[0]}"; expected some of {", ".join(names)}')
        return [part for part in self.parts if part.name in wanted]

    def entries(self, body: Json) -> list[tuple[PartT, Json]]:
        """Every part that the body of the JSON file has an entry `{result, ...}` of."""
        if self.section is None:
            return [(part, {"result": body[part.name]}) for part in self.parts if part.name in body]
        stored = body.get(self.section, {})
        return [(part, stored[part.name]) for part in self.parts if part.name in stored]

    def add(self, body: Json, part: PartT, entry: Json) -> None:
        """Puts a part's entry into the body of the JSON file, in place of an older one."""
        if self.section is None:
            body[part.name] = entry["result"]
        else:
            body[self.section] = {**body.get(self.section, {}), part.name: entry}
            body.update({key: entry["provenance"][key] for key in self.repeated})

    def markdown(self, body: Json) -> str:
        """The whole report for the body of the JSON file; parts without a result are left out."""
        sections = (self._section(part, entry) for part, entry in self.entries(body))
        return "\n".join([self.introduction(body), *sections])

    def _section(self, part: PartT, entry: Json) -> str:
        made = entry.get("provenance")
        try:
            text = part.markdown(entry["result"])
        except (KeyError, TypeError):  # the file may be older than the part
            text = f"Measured by another version; `{self.command} --only {part.name}` measures it again."
        images = "\n\n".join(f"![{part.title}]({name})" for name in part.plots)
        line = "" if made is None else f"<sub>{in_words(made, self.details(made))}</sub>"
        return "\n\n".join(piece for piece in (f"## {part.title}", text, images, line) if piece) + "\n"

    def write(self, body: Json, out: Path) -> None:
        """Writes both files."""
        write_json(out / self.results_file, body)
        write_text(out / self.text_file, self.markdown(body))
