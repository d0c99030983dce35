"""What the commands of `nann prepare` share: options, progress and what they print."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from .prepared_summary import show
from .support import console, print_json

DATA_FOLDER = Path("build/data")

FilesArgument = Annotated[
    list[Path], typer.Argument(help="The log's files, folders or patterns, in order.", metavar="FILE")
]
OutOption = Annotated[
    Path | None, typer.Option(help="Folder to write; a prepared data set there is replaced. Default: build/data/NAME.")
]
MaxBadShareOption = Annotated[
    float, typer.Option(help="Refuse the log if a larger share of its rows is bad.", min=0.0, max=1.0)
]


def names_of(text: str) -> tuple[str, ...]:
    """Names separated by commas."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def write(make: Callable[[Callable[[str], None]], Mapping[str, Any]], folder: Path, json_output: bool) -> None:
    """Makes a prepared data set in a folder, shows the steps and then what it is.

    `make` is called with a function that takes the description of each step, and returns the manifest.
    """
    with console.status("Starting") as status:
        manifest = make(lambda step: status.update(f"{step} ..."))
    show(manifest, folder)
    if json_output:
        keys = ("name", "counts", "warnings", "rows", "protocol", "reader")
        print_json({"path": str(folder), **{key: manifest[key] for key in keys}})
