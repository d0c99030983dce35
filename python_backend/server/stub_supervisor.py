"""Restarts Triton's Python processes ("stubs") that died, were stopped or hang, and ends a tritonserver that hangs.

Triton 2.51 does not: the server stays ready, and every request to the model fails after a second. Its control interface
loads a model again only if its files changed, so we change the time stamp of the version folder.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

from nann.errors import NannError, ServerError
from nann.signature import BEAM_RETRIEVAL, CATALOG, SCORER

from ..version_folder import CATALOG_VERSION
from .control import ModelControl
from .heartbeat import Heartbeat, Restarts, model_heartbeat
from .processes import DEAD, STOPPED, child_processes, process_state, served_model
from .served_form import ServedForm

CHECK_PERIOD_S = 0.25
LISTING_PERIOD_S = 1.0
STOPPED_S = 0.2
"""How long a stub may be stopped. Triton gives its request up after 1 s."""
SERVER_STOPPED_S = 3.0
SERVER_SILENT_S = 10.0
"""How long tritonserver may be stopped, and how long it may answer nothing."""
_HANG_MARGIN_S = 5.0
_OWN_PAUSE_S = 1.0
_LIVE_TIMEOUT_S = 2.0
_LONGEST_DELAY_S = 30.0


@dataclass
class _Stub:
    model: str
    version: str
    fault: str = "died"
    seen_dead: bool = False
    revived: bool = False

    @property
    def key(self) -> tuple[str, str]:
        return self.model, self.version


@dataclass
class _Backoff:
    """Waits longer each time that a model does not load; not if it loads and dies, as by a client's request."""

    delay_s: float = 0.0
    not_before: float = 0.0

    def next(self) -> None:
        self.delay_s = min(max(2 * self.delay_s, 1.0), _LONGEST_DELAY_S)
        self.not_before = time.monotonic() + self.delay_s


@dataclass
class StubSupervisor:
    """Watches the stubs of one server. Nothing here waits for the server: `check` must notice its end at once.

    Attributes:
        server_pid: process id of tritonserver.
        repository: the model repository that it serves.
        control: the server.
        report: gets one line about each action.
        set_ready: gets whether all processes of the version that answers are well.
        current_version: returns the version that answers.
        models_locked: keeps deploys from loading models meanwhile.
    """

    server_pid: int
    repository: Path
    control: ModelControl
    report: Callable[[str], None]
    set_ready: Callable[[bool], None]
    current_version: Callable[[], int | None]
    models_locked: Callable[[], AbstractContextManager[None]]
    _stubs: dict[int, _Stub] = field(default_factory=dict)
    _most: Counter[tuple[str, str]] = field(default_factory=Counter)
    """The largest number of processes that each model and version ever had."""
    _backoffs: dict[str, _Backoff] = field(default_factory=dict)
    _stopped_since: dict[int, float] = field(default_factory=dict)
    _heartbeats: dict[tuple[str, str], Heartbeat] = field(default_factory=dict)
    _restarts: Restarts = field(default_factory=Restarts)
    _repair: threading.Thread | None = None
    _last_check: float = field(default_factory=time.monotonic)
    _next_scan: float = 0.0
    _next_listing: float = 0.0

    def __post_init__(self) -> None:
        """Starts the heartbeat of the server; those of models start when their processes are seen."""
        self._form = ServedForm.of(self.control)
        configs = {spec.name: self.control.config(spec.name) for spec in self._form.processes}
        for model, config in configs.items():
            if config["backend"] == "python":
                version = CATALOG_VERSION if model == CATALOG.name else self.current_version()
                self._most[model, str(version)] = sum(group["count"] for group in config["instance_group"])
        parameters = configs[BEAM_RETRIEVAL.name].get("parameters", {})
        deadline_ms = float(parameters.get("deadline_ms", {}).get("string_value", 0))
        self.hang_s = deadline_ms / 1000 + _HANG_MARGIN_S
        """How long a process may answer nothing: longer than the server works on any request."""
        self._may_miss_scorer = parameters.get("on_scorer_failure", {}).get("string_value") == "fallback"
        self._server_heartbeat = Heartbeat(lambda: self.control.live(_LIVE_TIMEOUT_S))

    def check(self) -> None:
        """Looks at all processes; call it every few hundredths of a second.

        Raises:
            ServerError: if tritonserver hangs; it is killed.
        """
        now = time.monotonic()
        if now - self._last_check > _OWN_PAUSE_S:
            self._forgive()  # we stood still too, as in a paused container: nobody is to blame
        self._last_check = now
        self._check_server(now)
        self._check_stopped(now)
        if now >= self._next_scan:
            self._next_scan = now + CHECK_PERIOD_S
            self._scan()
            self._check_heartbeats()

    def close(self) -> None:
        """Sends no more heartbeats."""
        for heartbeat in (self._server_heartbeat, *self._heartbeats.values()):
            heartbeat.close()

    def _forgive(self) -> None:
        self._stopped_since.clear()
        for heartbeat in (self._server_heartbeat, *self._heartbeats.values()):
            heartbeat.forgive()

    def _stopped_for(self, pid: int, now: float) -> float:
        if process_state(pid) not in STOPPED:
            self._stopped_since.pop(pid, None)
            return 0.0
        return now - self._stopped_since.setdefault(pid, now)

    def _check_server(self, now: float) -> None:
        stopped_s, silent_s = self._stopped_for(self.server_pid, now), self._server_heartbeat.silent_s
        if stopped_s < SERVER_STOPPED_S and silent_s < SERVER_SILENT_S:
            return
        what = f"was stopped for {stopped_s:.0f} s" if stopped_s else f"answered nothing for {silent_s:.0f} s"
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.server_pid, signal.SIGKILL)
        raise ServerError(f"tritonserver (process {self.server_pid}) {what}, and was killed; start `nann serve` again")

    def _check_stopped(self, now: float) -> None:
        """Kills stubs that are stopped, before Triton gives up their requests."""
        if self.server_pid in self._stopped_since:
            return  # it gives up nothing meanwhile
        for pid, stub in self._stubs.items():
            if not stub.seen_dead and self._stopped_for(pid, now) >= STOPPED_S:
                self._kill(pid, stub, "was stopped")

    def _check_heartbeats(self) -> None:
        """Kills stubs that do not answer. A search waits for its scorer, so a scorer that is silent too is to blame."""
        silent = {key: heartbeat.silent_s for key, heartbeat in self._heartbeats.items()}
        if self._server_heartbeat.silent_s > SERVER_SILENT_S / 2 or max(silent.values(), default=0) < self.hang_s:
            return
        hung = [key for key, silent_s in silent.items() if silent_s > self.hang_s / 2]
        scorers = [key for key in hung if key[0] == SCORER.name]
        for pid, stub in self._stubs.items():
            if stub.key in (scorers or hung) and not stub.seen_dead:
                self._kill(pid, stub, f"answered nothing for {silent[stub.key]:.0f} s")
        self._forgive()

    def _kill(self, pid: int, stub: _Stub, fault: str) -> None:
        stub.fault = f"{fault} and was killed"
        stub.seen_dead = True
        self._stopped_since.pop(pid, None)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        self._next_scan = 0.0

    def _scan(self) -> None:
        """Finds new and dead stubs, and starts a repair.

        A stub that ends normally is also dead for a moment, so only a stub that is still dead at the next scan counts.
        """
        children = self._children()
        for pid, state in children.items():
            if pid not in self._stubs and state != DEAD and (served := served_model(pid)) is not None:
                self._stubs[pid] = _Stub(*served)
        self._name_unseen(children)
        self._stubs = {pid: stub for pid, stub in self._stubs.items() if pid in children}
        dead = [stub for pid, stub in self._stubs.items() if children[pid] == DEAD and not stub.revived]
        self.set_ready(not any(stub.seen_dead and self._is_missed(stub) for stub in dead))
        due = [stub for stub in dead if stub.seen_dead and self._is_due(stub)]
        for stub in dead:
            stub.seen_dead = True
        self._beat({self._stubs[pid].key for pid, state in children.items() if pid in self._stubs and state != DEAD})
        if due and (self._repair is None or not self._repair.is_alive()):
            self._repair = threading.Thread(target=self._revive, args=(due,), name="repair", daemon=True)
            self._repair.start()

    def _children(self) -> dict[int, str]:
        """The server's child processes and their states; new ones are looked for once a second: it has many threads."""
        now = time.monotonic()
        if now < self._next_listing:
            return {pid: state for pid in self._stubs if (state := process_state(pid))}
        self._next_listing = now + LISTING_PERIOD_S
        return child_processes(self.server_pid)

    def _name_unseen(self, children: dict[int, str]) -> None:
        """Finds the models of processes that died before their first scan: a dead process has no command line.

        The model is one that has fewer processes than before, counting those alive and those known to be dead.
        """
        present = Counter(
            stub.key
            for pid, state in children.items()
            if (stub := self._stubs.get(pid)) is not None and not (state == DEAD and stub.revived)
        )
        self._most |= present
        missing = [key for key in (self._most - present).elements() if self.repository.joinpath(*key).exists()]
        for pid in sorted(pid for pid, state in children.items() if state == DEAD and pid not in self._stubs):
            if missing:
                self._stubs[pid] = _Stub(*missing.pop())

    def _is_missed(self, stub: _Stub) -> bool:
        """Whether requests for items fail while this stub is away."""
        if stub.model == CATALOG.name:
            return False
        return stub.version == str(self.current_version()) and not (stub.model == SCORER.name and self._may_miss_scorer)

    def _is_due(self, stub: _Stub) -> bool:
        backoff = self._backoffs.setdefault(stub.model, _Backoff())
        return self.repository.joinpath(*stub.key).exists() and time.monotonic() >= backoff.not_before

    def _beat(self, alive: set[tuple[str, str]]) -> None:
        for key in self._heartbeats.keys() - alive:
            self._heartbeats.pop(key).close()
        for model, version in alive - self._heartbeats.keys():
            bundle_version = self.current_version() if model == CATALOG.name else version
            folder = self.repository / BEAM_RETRIEVAL.name / str(bundle_version)
            with contextlib.suppress(NannError):  # a version that is being removed
                self._heartbeats[model, version] = model_heartbeat(
                    self.control, self._form, model, int(version), folder, self._restarts
                )

    def _revive(self, stubs: list[_Stub]) -> None:
        for stub in stubs:
            if not stub.revived and self._load_again(stub):
                for one in stubs:
                    one.revived |= one.key == stub.key

    def _load_again(self, stub: _Stub) -> bool:
        """Loads a stub's model again; returns whether it has a new process."""
        start, backoff, before = time.monotonic(), self._backoffs[stub.model], set(self._living(stub))
        why = "Triton started no process"
        try:
            with self.models_locked():
                folder = self.repository.joinpath(*stub.key)
                if not folder.exists():
                    return False
                os.utime(folder)
                self.control.load(stub.model)
        except (NannError, OSError) as error:
            why = str(error)
        what = f"the process of {stub.model} version {stub.version} {stub.fault}"
        if not set(self._living(stub)) - before:
            backoff.next()
            self.report(f"{what} and does not load again: {why}; the next try is in {backoff.delay_s:.0f} s")
            return False
        backoff.delay_s = 0.0
        self._restarts.add(stub.model)
        self.report(f"{what}; it was loaded again in {time.monotonic() - start:.1f} s")
        return True

    def _living(self, stub: _Stub) -> list[int]:
        children = child_processes(self.server_pid)
        return [pid for pid, state in children.items() if state != DEAD and served_model(pid) == stub.key]
