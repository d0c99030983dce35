"""Resources of a running server: memory, shared memory, threads and file descriptors of all its processes."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Usage:
    """One sample.

    Attributes:
        pss_bytes: proportional set size without mapped files: memory that processes share is counted once, and other
            programs of the machine do not change it.
        shm_bytes: of the blocks of the server's files in /dev/shm.
        threads: of all processes.
        file_descriptors: open ones of all processes.
    """

    pss_bytes: int
    shm_bytes: int
    threads: int
    file_descriptors: int


RESOURCES = tuple(field.name for field in fields(Usage))


def group_processes(group: int) -> list[Path]:
    """Folders in /proc of the processes of a group: tritonserver, its leader, and the stubs."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            # "pid (name) state ppid pgrp ...": a name may hold spaces.
            if int((folder / "stat").read_text().rpartition(")")[2].split()[2]) == group:
                found.append(folder)
    return found


def commands_with(text: str) -> list[str]:
    """Command lines of this machine's processes that contain a text, such as the name of the test's own folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it ended meanwhile
            command = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if text in command:
                found.append(command)
    return found


def usage_of(group: int) -> Usage:
    """Samples the processes of the group that a tritonserver leads."""
    processes = group_processes(group)
    # The server names its shared memory after its working directory.
    region = Path(f"/proc/{group}/cwd").readlink().name
    memory = ("Pss_Anon:", "Pss_Shmem:")
    return Usage(
        pss_bytes=sum(1024 * _number(folder / "smaps_rollup", label) for folder in processes for label in memory),
        shm_bytes=sum(path.stat().st_blocks * 512 for path in Path("/dev/shm").glob(f"{region}-*")),
        threads=sum(_number(folder / "status", "Threads:") for folder in processes),
        file_descriptors=sum(len(list((folder / "fd").iterdir())) for folder in processes),
    )


def growth(times_s: Sequence[float], samples: Sequence[Usage]) -> dict[str, float]:
    """Growth of each resource per second, by linear regression (least squares)."""
    values = np.array([astuple(sample) for sample in samples], float)
    slopes = np.polyfit(np.asarray(times_s) - times_s[0], values, deg=1)[0]
    return dict(zip(RESOURCES, slopes.tolist(), strict=True))


def _number(path: Path, label: str) -> int:
    for line in path.read_text().splitlines():
        if line.startswith(label):
            return int(line.split()[1])
    raise LookupError(f"{path} has no {label}")
