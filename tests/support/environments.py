"""Clean virtual environments with the built wheel and one extra, as a user has them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
_OURS = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "PYTEST_CURRENT_TEST")


def clean_environment() -> dict[str, str]:
    """This process's environment variables without what would let its packages through."""
    return {name: value for name, value in os.environ.items() if name not in _OURS}


def run(*command: object, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Runs a command outside of this process's environment; nothing of the repository can be imported by accident."""
    environment = {**clean_environment(), "COLUMNS": "200", **variables}
    words = [str(word) for word in command]
    return subprocess.run(
        words,
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def pip(*arguments: object, cwd: Path) -> None:
    """Runs pip, which must succeed."""
    # Bytecode is made for what is imported, not for all of torch.
    ended = run(sys.executable, "-m", "pip", "--quiet", *arguments, cwd=cwd)
    assert ended.returncode == 0, ended.stderr[-3000:]


class Environment(NamedTuple):
    """A virtual environment and the folder beside it that its commands run in."""

    folder: Path
    wheel: Path

    @classmethod
    def make(cls, folder: Path, wheel: Path) -> Environment:
        """An empty one, without pip: ours installs into it."""
        (folder / "cwd").mkdir(parents=True)
        ended = run(sys.executable, "-m", "venv", "--without-pip", folder / "venv", cwd=folder)
        assert ended.returncode == 0, ended.stderr
        return cls(folder, wheel)

    @property
    def cwd(self) -> Path:
        return self.folder / "cwd"

    def install(self, extra: str = "") -> Environment:
        """Installs the wheel with one extra and what it depends on."""
        requirement = f"{self.wheel}[{extra}]" if extra else str(self.wheel)
        into = ("--python", self.folder / "venv")
        pip(*into, "install", "--no-compile", requirement, cwd=self.cwd)
        return self

    def python(self, code: str, *arguments: str) -> str:
        """What a program prints; it must succeed."""
        ended = run(self.folder / "venv/bin/python", "-c", code, *arguments, cwd=self.cwd)
        assert ended.returncode == 0, ended.stderr[-3000:]
        return ended.stdout

    def nann(self, *arguments: object, **variables: str) -> subprocess.CompletedProcess[str]:
        """Runs the installed command."""
        return run(self.folder / "venv/bin/nann", *arguments, cwd=self.cwd, **variables)

    def done(self, *arguments: object, **variables: str) -> str:
        """Runs the installed command, which must succeed; what it prints on standard output."""
        ended = self.nann(*arguments, **variables)
        assert ended.returncode == 0, ended.stderr[-3000:]
        return ended.stdout
