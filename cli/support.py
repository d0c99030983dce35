"""What every command shares: errors as one line with exit code 2, and `--json` on the last line."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Annotated, Any

import typer
from rich.console import Console

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line of standard output.")]

console = Console(stderr=True)
"""Progress and words for people go to standard error; standard output carries results."""


def print_json(body: Mapping[str, Any]) -> None:
    """Prints one JSON object on one line of standard output."""
    sys.stdout.write(json.dumps(body, ensure_ascii=False) + "\n")
    sys.stdout.flush()
