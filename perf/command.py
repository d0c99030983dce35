"""Modules of perf that are commands of their own: `python -m nann.perf...`."""

from __future__ import annotations

import sys
from collections.abc import Callable

import typer

from nann.errors import NannError


def run_command(main: Callable[..., None]) -> None:
    """Runs it with the process's arguments; a mistake of the user's is one line and exit code 2."""
    try:
        typer.run(main)
    except NannError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(2)
