"""What /proc says about the Python processes ("stubs") of a server."""

from __future__ import annotations

import re
from pathlib import Path

DEAD = "Z"
"""State of a process that ended and is not yet waited for."""
STOPPED = frozenset("Tt")
"""States of a process that a signal or a debugger stopped."""
_MODEL_FILE = re.compile(r"/(\w+)/(\d+)/\w+\.py")


def child_processes(pid: int) -> dict[int, str]:
    """The child processes of all threads of a process, and the state of each, as in `process_state`."""
    children: dict[int, str] = {}
    for thread in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, _read(thread).split()):
            children[child] = process_state(child)
    return children


def process_state(pid: int) -> str:
    """The letter that ps shows: R, S, D, T (stopped), t (stopped by a debugger) or Z (dead); "" if there is none."""
    # "pid (name) state ...": a name may hold spaces.
    return _read(Path(f"/proc/{pid}/stat")).rpartition(") ")[2][:1]


def served_model(pid: int) -> tuple[str, str] | None:
    """Name and version of the model that a stub runs; None: it is no stub, or dead: then it has no command line."""
    match = _MODEL_FILE.search(_read(Path(f"/proc/{pid}/cmdline")).replace("\0", " "))
    return None if match is None else (match.group(1), match.group(2))


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:  # the process ended meanwhile
        return ""
