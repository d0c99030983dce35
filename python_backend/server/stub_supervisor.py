"""Restarts Triton's Python processes ("stubs") that died.

Triton 2.51 does not: the server stays ready, and every request to the model fails after a second. Its control interface
loads a model again only if its files changed, so we change the time stamp of the version folder.
"""

from __future__ import annotations

import os
import re
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from nann.errors import NannError

from .control import ModelControl

CHECK_PERIOD_S = 0.25
_MODEL_FILE = re.compile(r"/(\w+)/(\d+)/\w+\.py")
_QUIET_S = 60.0
_LONGEST_DELAY_S = 30.0


@dataclass
class _Stub:
    model: str
    version: str
    seen_dead: bool = False
    revived: bool = False


@dataclass
class _Backoff:
    """Waits longer each time that a model dies soon after it was loaded."""

    delay_s: float = 0.0
    not_before: float = 0.0

    def next(self) -> None:
        now = time.monotonic()
        if now - self.not_before > _QUIET_S:
            self.delay_s = 0.0
        self.delay_s = min(max(2 * self.delay_s, 1.0), _LONGEST_DELAY_S)
        self.not_before = now + self.delay_s


@dataclass
class StubSupervisor:
    """Watches the stubs of one server.

    Attributes:
        server_pid: process id of tritonserver.
        repository: the model repository that it serves.
        control: the server.
        report: gets one line about each action.
    """

    server_pid: int
    repository: Path
    control: ModelControl
    report: Callable[[str], None]
    _stubs: dict[int, _Stub] = field(default_factory=dict)
    _most: Counter[tuple[str, str]] = field(default_factory=Counter)
    """The largest number of processes that each model and version ever had."""
    _backoffs: dict[str, _Backoff] = field(default_factory=dict)
    _next_check: float = 0.0

    def check(self) -> None:
        """Looks for stubs that died and loads their models again; does nothing for `CHECK_PERIOD_S` after that.

        A stub that ends normally is also dead for a moment, so only a stub that is still dead at the next check counts.
        """
        if time.monotonic() < self._next_check:
            return
        children = child_processes(self.server_pid)
        for pid, dead in children.items():
            if pid not in self._stubs and not dead and (match := _MODEL_FILE.search(_command_line(pid))):
                self._stubs[pid] = _Stub(match.group(1), match.group(2))
        self._name_unseen(children)
        for pid, dead in children.items():
            stub = self._stubs.get(pid)
            if stub is None or stub.revived or not dead:
                continue
            if stub.seen_dead and (self.repository / stub.model / stub.version).exists():
                self._revive(stub)
            stub.seen_dead = True
        self._next_check = time.monotonic() + CHECK_PERIOD_S

    def _name_unseen(self, children: Mapping[int, bool]) -> None:
        """Finds the models of processes that died before their first check: a dead process has no command line.

        The model is one that has fewer processes than before, counting those alive and those known to be dead.
        """
        present = Counter(
            (stub.model, stub.version)
            for pid, dead in children.items()
            if (stub := self._stubs.get(pid)) is not None and not (dead and stub.revived)
        )
        self._most |= present
        missing = [pair for pair in (self._most - present).elements() if self.repository.joinpath(*pair).exists()]
        for pid in sorted(pid for pid, dead in children.items() if dead and pid not in self._stubs):
            if missing:
                self._stubs[pid] = _Stub(*missing.pop())

    def _revive(self, stub: _Stub) -> None:
        backoff = self._backoffs.setdefault(stub.model, _Backoff())
        start = time.monotonic()
        if start < backoff.not_before:
            return
        backoff.next()
        what = f"the process of {stub.model} version {stub.version} died"
        try:
            os.utime(self.repository / stub.model / stub.version)
            self.control.load(stub.model)
        except (NannError, OSError) as error:
            self.report(f"{what} and does not load again: {error}; the next try is in {backoff.delay_s:.0f} s")
            return
        stub.revived = True
        self.report(f"{what}; it was loaded again in {time.monotonic() - start:.1f} s")


def child_processes(pid: int) -> dict[int, bool]:
    """The child processes of all threads of a process, and whether each is dead and not yet waited for."""
    children: dict[int, bool] = {}
    for thread in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in _read(thread).split():
            children[int(child)] = " Z " in _read(Path(f"/proc/{child}/stat"))
    return children


def _command_line(pid: int) -> str:
    return _read(Path(f"/proc/{pid}/cmdline")).replace("\0", " ")


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:  # the process ended meanwhile
        return ""
