"""A report and its parts: what each part measures and prints, and the report's JSON and Markdown file."""

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


@dataclass(frozen=True)
class Part(Generic[Run]):
    """One part of a report: a measurement, and pure functions of its result.

    Attributes:
        name: for `--only`.
        title: heading in the report.
        run: measures; the result is JSON, with times in ms and shares as fractions.
        markdown: the result as text and tables, without the heading and the plots.
        plots: file name -> function of (result, path) that writes that PNG.
        headline: result -> keys at the top of the JSON file; also gets `Measuring.about` as keyword arguments.
        joined: (entry in the JSON file or None, new entry) -> the entry to write. Default: the new one.
    """

    name: str
    title: str
    run: Callable[Run, Json]
    markdown: Callable[[Json], str]
    plots: Mapping[str, Callable[[Json, Path], None]] = field(default_factory=dict)
    headline: Callable[..., dict[str, Json]] = lambda result, **about: {}
    joined: Callable[[Json, Json], Json] = lambda stored, entry: entry


PartT = TypeVar("PartT", bound=Part[...])


@dataclass(frozen=True)
class Report(Generic[PartT]):
    """A kind of report: a JSON and a Markdown file about the same parts.

    Attributes:
        results_file: name of the JSON file.
        text_file: name of the Markdown file.
        parts: all parts, in the order of the Markdown.
        word: name of a part in progress lines.
        introduction: body of the JSON file -> begin of the Markdown.
        section: key of the JSON file for `{name of a part: {provenance, result, ...}}`; None = the file holds each
            result under its part's name, without provenance.
        details: provenance -> additions to the line below a part, which has command, machine, versions and date.
        repeated: keys of the last provenance that are also at the top of the JSON file.
        command: the command that takes `--only`.
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
        """The parts named by a comma-separated list, in the order of the report; all if there is no list.

        Raises:
            ConfigError: if a name is unknown.
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
        """The parts that the body of the JSON file has, with their entries `{result, ...}`."""
        if self.section is None:
            return [(part, {"result": body[part.name]}) for part in self.parts if part.name in body]
        stored = body.get(self.section, {})
        return [(part, stored[part.name]) for part in self.parts if part.name in stored]

    def add(self, body: Json, part: PartT, entry: Json, about: Mapping[str, Json]) -> None:
        """Puts a part's entry and headline into the body of the JSON file; `about` as in `Measuring`."""
        stored = next((known for other, known in self.entries(body) if other.name == part.name), None)
        entry = part.joined(stored, entry)
        body.update(part.headline(entry["result"], **about))
        if self.section is None:
            body[part.name] = entry["result"]
        else:
            body[self.section] = {**body.get(self.section, {}), part.name: entry}
            body.update({key: entry["provenance"][key] for key in self.repeated})

    def markdown(self, body: Json) -> str:
        """The whole report from the body of the JSON file; leaves out parts without a result."""
        sections = (self._section(part, entry) for part, entry in self.entries(body))
        return "\n".join([self.introduction(body), *sections])

    def _section(self, part: PartT, entry: Json) -> str:
        provenance = entry.get("provenance")
        try:
            text = part.markdown(entry["result"])
        except (KeyError, TypeError):  # an older version of the part may have written the result
            text = f"Measured by another version; `{self.command} --only {part.name}` measures it again."
        images = "\n\n".join(f"![{part.title}]({name})" for name in part.plots)
        line = "" if provenance is None else f"<sub>{in_words(provenance, self.details(provenance))}</sub>"
        return "\n\n".join(piece for piece in (f"## {part.title}", text, images, line) if piece) + "\n"

    def write(self, body: Json, out: Path) -> None:
        """Writes both files."""
        write_json(out / self.results_file, body)
        write_text(out / self.text_file, self.markdown(body))
