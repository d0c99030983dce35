"""One server at a time serves a model repository, and no command changes the repository behind its back."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

from nann.errors import ConfigError

_LOCK_FILE = Path(".versions") / ".served"
_PATIENCE_S = 5.0
"""A killed server's processes are gone sooner."""
_POLL_S = 0.05


@contextlib.contextmanager
def repository_lock(repository: Path, holder: str) -> Iterator[int]:
    """Keeps a repository to this process, and to those that inherit the descriptor, until all of them have ended.

    Args:
        repository: a model repository; its folder is made.
        holder: what to call this process in the refusal that others get.

    Yields:
        The descriptor.

    Raises:
        ConfigError: naming the process that has the repository.
    """
    descriptor = _open(repository / _LOCK_FILE)
    try:
        deadline = time.monotonic() + _PATIENCE_S
        while not _locked(descriptor):
            pid, _, words = os.pread(descriptor, 1000, 0).decode(errors="replace").partition(" ")
            if Path("/proc", pid or "none").exists() or time.monotonic() > deadline:
                raise ConfigError(
                    f"{repository} is in use by process {pid} ({words}); stop that process first, or use `nann deploy` "
                    "and `nann rollback`, which change the version that a running server answers with"
                )
            time.sleep(_POLL_S)
        with contextlib.suppress(OSError):  # a full or read-only disk: the lock holds, without a name
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()} {holder}".encode(), 0)
        yield descriptor
    finally:
        os.close(descriptor)


def _open(path: Path) -> int:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        with contextlib.suppress(OSError):
            return os.open(path, os.O_RDONLY)
        raise ConfigError(f"{path}, the lock of the repository, can't be made: {error.strerror}") from error


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
