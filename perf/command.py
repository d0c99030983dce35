"""Runs the modules of `perf` that are commands."""

from __future__ import annotations

import sys
from collections.abc import Callable

import typer

from nann.errors import NannError


def run_command(main: Callable[..., None]) -> None:
    """Runs `main` with the process's arguments; a `NannError` is printed as one line, with exit code 2."""
    try:
        typer.run(main)
    except NannError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(2)
