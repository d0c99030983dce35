"""Runs `nann` in this process, and keeps what its commands made from the tiny log."""

from __future__ import annotations

import contextlib
import io
import json
import re
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from nann.cli import main as cli_main
from support import tiny_log

CONFIG = {
    **tiny_log.CONFIG,
    "optimization": {"steps": 20, "batch_size": 32, "warmup_steps": 2},
    "search": {"top_k": 20, "ef": [20, 60], "rounds": [1, 4]},
}

_FOUND = re.compile(r"(files|time|columns of folders|item ids|user ids|events): ")
"""What `nann prepare log` prints before it uses it."""


class Ended(NamedTuple):
    """Exit code and output of a command."""

    code: int
    stdout: str
    stderr: str

    @property
    def json(self) -> dict:
        return json.loads(self.stdout.splitlines()[-1])


def nann(*arguments: object) -> Ended:
    """Runs `nann ARGUMENTS` in this process."""
    out, err = io.StringIO(), io.StringIO()
    code = 0
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        patch.setattr(sys, "argv", ["nann", *map(str, arguments)])
        patch.setenv("COLUMNS", "200")
        try:
            cli_main.main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
    return Ended(code, out.getvalue(), err.getvalue())


def refused(*arguments: object) -> str:
    """Runs a command that must fail; returns the single line that it prints, after what it found out about a log."""
    ended = nann(*arguments)
    assert ended.code == 2, ended
    assert ended.stdout == ""
    lines = [line for line in ended.stderr.splitlines() if line.strip() and not _FOUND.match(line)]
    assert len(lines) == 1, ended.stderr
    assert lines[0].startswith("error: ")
    return lines[0]


class Pipeline(NamedTuple):
    """The folders that the commands made from a tiny log, and the output of each command."""

    folder: Path
    ended: dict[str, Ended]

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def config(self) -> Path:
        return self.folder / "config.yaml"

    @property
    def checkpoint(self) -> Path:
        return self.folder / "train" / "checkpoint.pt"

    @property
    def bundle(self) -> Path:
        return self.folder / "bundle"
