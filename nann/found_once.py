"""What one process of a server has found out and the others need not: the hash of a file, the engine that is fastest.

Several processes load the same files when a server starts, and one loads them again when it was killed. The server
gives them a folder for as long as it runs. Each finding is a file there, locked while somebody works on it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Callable
from pathlib import Path

FOLDER_VARIABLE = "NANN_FOUND_FOLDER"
"""Environment variable with the folder of a server's processes."""
_END = "\n"


def found_once(key: str, find: Callable[[], str], folder: Path | None = None) -> str:
    """What `find` returns, one line; or what it returned to another process that asked with this key.

    Whoever asks meanwhile waits. Nothing is kept if `find` raises, or if there is no folder or no room in it.

    Args:
        key: a file name that says all that the finding depends on.
        find: finds it out.
        folder: None: that of `FOLDER_VARIABLE`.
    """
    with contextlib.ExitStack() as stack:
        try:
            path = (folder or Path(os.environ[FOLDER_VARIABLE])) / key
            record = stack.enter_context(path.open("a+", encoding="utf-8"))
            fcntl.flock(record, fcntl.LOCK_EX)
            record.seek(0)
            known = record.read()
        except (KeyError, OSError):
            return find()
        if known.endswith(_END):
            return known.removesuffix(_END)
        found = find()
        with contextlib.suppress(OSError):
            record.truncate(0)  # of a process that was killed while it wrote
            record.write(found + _END)
            record.flush()
        return found
