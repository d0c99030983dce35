"""A child process and all its descendants, which stop together and never outlive this process."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TextIO, cast

_PR_SET_PDEATHSIG = 1
_POLL_S = 0.02
_KILLED_S = 2.0
"""How long a killed process may take to die."""
# In the background, since it is no child of this process that others should find. It reads the group's id, then a line
# that says that all is done. The end of the input instead is the end of this process. "$1" is the group's folder, "$2"
# the beginning of the paths of its shared memory.
_CLEANER = """exec 3<&0
{ read -r group; read -r done || { kill -KILL "-$group"; rm -rf -- "$1" "$2"*; }; } <&3 &
"""


class ProcessGroup:
    """A running child process that leads a process group of its own.

    Ctrl-C at the terminal reaches only this process, which stops the group in order. If this process is killed, a shell
    that waits for that kills the whole group, also processes that hang or that a client keeps busy, and removes what
    they leave. Should the shell be killed too, the kernel tells the child to stop.
    """

    def __init__(self, process: subprocess.Popen[str], cleaner: int) -> None:
        self._process = process
        self._cleaner = cleaner

    @classmethod
    def start(
        cls,
        command: Sequence[str],
        environment: Mapping[str, str],
        folder: Path,
        shared_memory: Path,
        descriptors: Sequence[int] = (),
    ) -> ProcessGroup:
        """Starts `command`; its standard output and error come together in `output`.

        Call this from a thread that lives as long as the child: the kernel stops the child when that thread ends.

        Args:
            command: program and arguments.
            environment: its whole environment.
            folder: where it runs; removed if this process is killed.
            shared_memory: the same for all paths that begin with this one.
            descriptors: the only ones of our open files that it inherits.
        """
        waiting, cleaner = os.pipe()
        with open(waiting, "rb") as stream:
            subprocess.run(
                ["/bin/sh", "-c", _CLEANER, "nann-cleaner", str(folder), str(shared_memory)],
                cwd="/",
                stdin=stream,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
                check=True,
            )
        parent = os.getpid()
        libc = ctypes.CDLL(None, use_errno=True)

        def die_with_parent() -> None:
            libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
            if os.getppid() != parent:  # the parent ended before the line above
                os._exit(1)

        process = subprocess.Popen(
            command,
            env=environment,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
            pass_fds=descriptors,
            preexec_fn=die_with_parent,
        )
        os.write(cleaner, b"%d\n" % process.pid)
        return cls(process, cleaner)

    @property
    def pid(self) -> int:
        """Process id of the child, which is the id of the group too."""
        return self._process.pid

    @property
    def output(self) -> TextIO:
        """Standard output and error of the whole group."""
        return cast(TextIO, self._process.stdout)

    @property
    def killed_by(self) -> str | None:
        """Name of the signal that ended the child, if one did."""
        code = self._process.poll()
        return signal.Signals(-code).name if code is not None and code < 0 else None

    def is_alive(self) -> bool:
        """Whether the child is running."""
        return self._process.poll() is None

    def stop(self, grace_s: float) -> None:
        """Asks the child to stop; when it has stopped, or after `grace_s`, kills the rest of the group.

        A process that is frozen, or waits for a disk that does not answer, dies later; nobody waits for it.
        """
        self._process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(grace_s)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_KILLED_S)
        with contextlib.suppress(BrokenPipeError):  # somebody killed it
            os.write(self._cleaner, b"done\n")
        os.close(self._cleaner)
        deadline = time.monotonic() + _KILLED_S
        while _group_lives(self.pid) and time.monotonic() < deadline:
            time.sleep(_POLL_S)


def _group_lives(group: int) -> bool:
    """Whether a process of the group has not ended; those that wait for their parent to notice have."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            # "pid (name) state parent group ...": a name may hold spaces.
            state, _, its_group = path.read_text(errors="replace").rpartition(") ")[2].split()[:3]
            if int(its_group) == group and state not in "ZX":
                return True
    return False
