"""The shared memory of a server's processes in /dev/shm, and how it goes when they are dead."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from nann.errors import ServerError

FOLDER = Path("/dev/shm")  # noqa: S108 - where Triton puts it
PREFIX = "nann-triton-"
"""Of the names of all our servers' regions."""
_LOCK = "lock"


@contextlib.contextmanager
def own_regions(name: str) -> Iterator[int]:
    """Reserves the names `{name}-*` for the regions of one server, and removes them at the end.

    Yields:
        A descriptor for the server to inherit. While a process has it, the regions are in use. So `remove_dead` knows
        them from those of a server that was killed, whatever container or user it ran in.

    Raises:
        ServerError: if nothing can be made in /dev/shm.
    """
    assert name.startswith(PREFIX)
    lock = FOLDER / f"{name}-{_LOCK}"
    try:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise ServerError(f"Triton's processes share memory in {FOLDER}, which can't be used: {error}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
    finally:
        _remove(name)
        os.close(descriptor)


def remove_dead() -> None:
    """Removes the regions of our servers of which no process lives any more, except those of other users."""
    for lock in FOLDER.glob(f"{PREFIX}*-{_LOCK}"):
        # Errors: it is in use, another user's, or was just removed.
        with contextlib.suppress(OSError), lock.open("rb") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _remove(lock.name.removesuffix(f"-{_LOCK}"))


def _remove(name: str) -> None:
    for path in FOLDER.glob(f"{name}-*"):
        path.unlink(missing_ok=True)
