"""Starts, watches and stops a real Triton Inference Server as a child process."""

from __future__ import annotations

import contextlib
import http.client
import os
import secrets
import shlex
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from nann.errors import ConfigError, NannError, ServerError
from nann.found_once import FOLDER_VARIABLE
from nann.signature import CATALOG, ENSEMBLE, SCORER

from ..settings import CATALOG_STREAM_VARIABLE
from ..tracing import triton_trace_options
from ..version_folder import EMBEDDED, ONE, SEPARATE, STEPS_CONFIGS
from .admin_key import ADMIN_HEADER, GRPC_ADMIN_HEADER
from .control import ModelControl
from .hidden_key import hidden_key
from .log import NO_GPU_LINES, LogRelay, failure_lines
from .ports import address_of, check_ports, raise_file_limit
from .process_group import ProcessGroup
from .processes import DEAD, child_processes
from .repository_lock import repository_lock
from .shared_memory import FOLDER, PREFIX, own_regions, remove_dead
from .tls import ServerTls
from .triton_install import TritonInstall, find_triton, has_gpu
from .verified_ahead import VerifiedAhead

# No client of a retrieval server needs these, and shared memory has had security holes.
_RESTRICTED_APIS = "shared-memory,model-repository,trace,logging"
# Verifying the hashes of a large bundle can take longer than the Python backend's default of 30 s.
_STUB_TIMEOUT_S = 300
_POLL_S = 0.05
_LIVE_TIMEOUT_S = 2.0
NOT_READY_VARIABLE = "NANN_NOT_READY_FILE"
"""While the file that it names exists, the preloaded library says that the server is not ready (_readiness.cpp)."""
# How long something that keeps the server from getting ready may last: Triton should say more and end by itself.
_OBSTACLE_S = 3.0


@dataclass(frozen=True)
class ServerOptions:
    """How to start the server.

    Attributes:
        repository: model repository with a bundle installed.
        host: address to bind to, or a name that has one.
        http_port: KServe V2 over HTTP.
        grpc_port: KServe V2 over gRPC.
        metrics_port: Prometheus metrics.
        target: what runs user encoder and scorer; name of the model configurations (`configs/<target>.pbtxt`).
        log_file: where the server's log goes; None: standard error.
        start_timeout_s: how long loading may take.
        stop_grace_s: how long requests in flight may take to finish at stop. An idle HTTP connection that its client
            keeps open uses up this time, too.
        admin_key: opens the endpoints for shared memory, the model repository, tracing and logging to requests that
            carry it; None: they are closed to all clients.
        http_inference: whether clients may ask over HTTP; else only requests with the admin key.
        catalog_stream: URL of the Redis stream that holds the changes of items of several servers; None: this server
            alone changes them.
        tls: TLS for gRPC. Triton's HTTP has no TLS, so it is then bound to loopback.
        steps: into which models a request is divided, one of `STEPS`; all but SEPARATE need the target EMBEDDED.
    """

    repository: Path
    host: str = "127.0.0.1"
    http_port: int = 8000
    grpc_port: int = 8001
    metrics_port: int = 8002
    target: str = EMBEDDED
    log_file: Path | None = None
    start_timeout_s: float = 300.0
    stop_grace_s: float = 3.0
    admin_key: str | None = field(default=None, repr=False)
    catalog_stream: str | None = None
    tls: ServerTls | None = None
    http_inference: bool = True
    steps: str = SEPARATE

    @property
    def config_name(self) -> str:
        """Name of the model configurations."""
        return STEPS_CONFIGS.get(self.steps, self.target)

    @property
    def http_host(self) -> str:
        """Address, or name, that HTTP is bound to."""
        return self.host if self.tls is None else "127.0.0.1"

    @property
    def words(self) -> str:
        """What to call this server on its machine."""
        return f"a server, HTTP at {self.http_host}:{self.http_port}"

    @property
    def ports(self) -> dict[str, int]:
        """Port by the name of the command line option that sets it."""
        return {"http-port": self.http_port, "grpc-port": self.grpc_port, "metrics-port": self.metrics_port}


class TritonServer:
    """One Triton server; a context manager that starts and stops it.

    Args:
        options: how to start it.
        install: which Triton; None: `find_triton`.
    """

    def __init__(self, options: ServerOptions, install: TritonInstall | None = None) -> None:
        self.options = options
        self._install = install
        self._group: ProcessGroup | None = None
        self._relay: LogRelay | None = None
        self._cleanup = contextlib.ExitStack()
        self._not_ready_file: Path | None = None
        self._admin_key = options.admin_key or secrets.token_hex(16)

    @property
    def http_url(self) -> str:
        """`host:port` of KServe V2 over HTTP."""
        return f"{self.options.http_host}:{self.options.http_port}"

    @property
    def grpc_url(self) -> str:
        """`host:port` of KServe V2 over gRPC."""
        return f"{self.options.host}:{self.options.grpc_port}"

    @property
    def metrics_url(self) -> str:
        """`host:port` of the Prometheus metrics, at `/metrics`."""
        return f"{self.options.host}:{self.options.metrics_port}"

    @property
    def control(self) -> ModelControl:
        """Control of its models; needs no `admin_key` in the options."""
        return ModelControl(self.http_url, self._admin_key)

    @property
    def pid(self) -> int | None:
        """Process id of tritonserver, None when it is not running."""
        return self._group.pid if self._group is not None and self._group.is_alive() else None

    def start(self) -> None:
        """Starts the server and waits until all models are ready; does nothing if it runs already.

        Raises:
            BundleError: if a file of the current version is missing or changed.
            ConfigError: if a port can't be used, too few files may be open, or another server uses the repository.
            ServerError: with Triton's reason, if it is not installed, a model does not load or loading takes too long.
        """
        if self.pid is not None:
            return
        options = self.options
        check_ports(options.host, options.ports)
        raise_file_limit()
        install = self._install or find_triton()
        install.check_target(options.target)
        try:
            self._wait_until_ready(self._launch(install))
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stops the server in order, then kills the rest; does nothing if it is not running.

        New requests are refused as UNAVAILABLE, and requests under way are answered, for at most `stop_grace_s`. Then
        Triton itself is stopped, which takes as long again if clients keep connections open.
        """
        if self.pid is not None:
            self._drain()
        group, self._group = self._group, None
        if group is not None:
            group.stop(self.options.stop_grace_s + 1)
        if self._relay is not None:
            self._relay.close()
        self._cleanup.close()

    def wait(self, look_after: Callable[[], None] = lambda: None) -> None:
        """Blocks while the server runs, and calls `look_after` repeatedly.

        Raises:
            ServerError: when it stops by itself, or from `look_after`.
        """
        while self.pid is not None:
            look_after()
            time.sleep(_POLL_S)
        group, self._group = self._group, None
        end = None
        if group is not None:
            group.stop(0)  # its Python processes keep the log open
            end = group.killed_by
        raise ServerError(self._failure("Triton stopped by itself" if end is None else f"Triton was ended by {end}"))

    def set_ready(self, ready: bool) -> None:
        """Makes a running server say that it is not ready, or say again what Triton finds."""
        if self._not_ready_file is not None and ready == self._not_ready_file.exists():
            if ready:
                self._not_ready_file.unlink(missing_ok=True)
            else:
                self._not_ready_file.touch()

    def is_ready(self) -> bool:
        """Whether all models answer."""
        # Not urllib.request, which asks a proxy where the environment names one.
        connection = http.client.HTTPConnection(self.options.http_host, self.options.http_port, timeout=5)
        try:
            connection.request("GET", "/v2/health/ready")
            return connection.getresponse().status == http.HTTPStatus.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def __enter__(self) -> TritonServer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _drain(self) -> None:
        """Unloads the ensemble first: on a signal, Triton at once refuses the scorer calls of searches under way."""
        with contextlib.suppress(NannError):
            self.control.live(_LIVE_TIMEOUT_S)  # whoever hangs drains nothing
            self.control.unload(ENSEMBLE.name, self.options.stop_grace_s)
            deadline = time.monotonic() + self.options.stop_grace_s
            while self.control.loaded_versions(ENSEMBLE.name) and time.monotonic() < deadline:
                time.sleep(_POLL_S)

    def _launch(self, install: TritonInstall) -> VerifiedAhead:
        options, keep = self.options, self._cleanup.enter_context
        lock = keep(repository_lock(options.repository, options.words))
        runtime = Path(keep(tempfile.TemporaryDirectory(prefix=PREFIX)))
        if not _is_plain(runtime):
            raise ConfigError(
                f"TMPDIR is {str(runtime.parent)!r}, which Triton can't use; set it to a path of letters and digits"
            )
        remove_dead()
        regions = keep(own_regions(runtime.name))
        backends = install.make_backend_directory(runtime / "backends")
        files = keep(contextlib.closing(VerifiedAhead(options.repository, runtime / "found")))
        self._not_ready_file = runtime / "not-ready"
        repository = options.repository.resolve()
        if not _is_plain(repository):  # Triton starts the processes of its models with a shell, and does not quote
            repository = runtime / "repository"
            repository.symlink_to(options.repository.resolve())
        sink = sys.stderr
        if options.log_file is not None:
            options.log_file.parent.mkdir(parents=True, exist_ok=True)
            sink = keep(options.log_file.open("w", encoding="utf-8"))
        with hidden_key(self._admin_key) as key:
            command = server_command(options, install, repository, backends, f"{runtime.name}-", key.placeholder)
            variables = {**install.environment(), NOT_READY_VARIABLE: str(self._not_ready_file)}
            variables |= {CATALOG_STREAM_VARIABLE: options.catalog_stream or "", FOLDER_VARIABLE: str(files.found)}
            # Not our working directory: a folder `nann/` there would hide the package of that name.
            self._group = ProcessGroup.start(
                command, key.environment(variables), runtime, FOLDER / f"{runtime.name}-", (key.pipe, lock, regions)
            )
        self._relay = LogRelay(self._group.output, sink, None if has_gpu() else NO_GPU_LINES)
        return files

    def _wait_until_ready(self, files: VerifiedAhead) -> None:
        deadline = time.monotonic() + self.options.start_timeout_s
        in_the_way_since: float | None = None
        while not self.is_ready():
            pid = self.pid
            files.check(wait=pid is None)  # a file that is damaged is the reason that helps
            if pid is None:
                raise ServerError(self._failure("Triton could not start"))
            now = time.monotonic()
            if now > deadline:
                raise ServerError(self._failure(f"Triton was not ready after {self.options.start_timeout_s:.0f} s"))
            obstacle = self._obstacle(pid)
            in_the_way_since = None if obstacle is None else in_the_way_since or now
            if in_the_way_since is not None and now - in_the_way_since > _OBSTACLE_S:
                raise ServerError(self._failure(f"Triton can't get ready, since {obstacle}"))
            time.sleep(_POLL_S)
        files.check(wait=True)

    def _obstacle(self, pid: int) -> str | None:
        """What keeps the server from ever getting ready, although it runs; None: nothing that is known."""
        if self._relay is not None and self._relay.says_load_failed:
            return "a model did not load"
        # Triton waits for the first sign of life of a process for `_STUB_TIMEOUT_S`, also of one that is dead.
        if DEAD in child_processes(pid).values():
            return "the process of a model has ended"
        return None

    def _failure(self, failure: str) -> str:
        if self._relay is None:
            return failure
        if self.pid is None:
            self._relay.close()
        where = f"; its log is {self.options.log_file}" if self.options.log_file is not None else ""
        return "\n  ".join([f"{failure}{where}:", *failure_lines(self._relay.lines)])


def server_command(
    options: ServerOptions, install: TritonInstall, repository: Path, backends: Path, region: str, admin_key: str
) -> list[str]:
    """Command line of tritonserver. `region` prefixes the names of the Python backend's shared memory.

    `admin_key` is a placeholder of the key, since everybody can read a command line.
    """
    admin = f"{ADMIN_HEADER}={admin_key}"
    loaded = (ENSEMBLE, CATALOG) if options.steps == ONE else (ENSEMBLE, SCORER, CATALOG)
    address, http_address = address_of(options.host), address_of(options.http_host)
    return [
        str(install.server),
        f"--model-repository={repository}",
        f"--backend-directory={backends}",
        f"--model-config-name={options.config_name}",
        # `nann deploy` loads and unloads versions. A model that does not load stops the start. The ensemble loads the
        # models of its steps.
        "--model-control-mode=explicit",
        *(f"--load-model={spec.name}" for spec in loaded),
        "--exit-on-error=true",
        "--disable-auto-complete-config",
        f"--exit-timeout-secs={max(1, round(options.stop_grace_s))}",
        f"--http-address={http_address}",
        f"--http-port={options.http_port}",
        f"--grpc-address={address}",
        f"--grpc-port={options.grpc_port}",
        f"--metrics-address={address}",
        f"--metrics-port={options.metrics_port}",
        f"--http-restricted-api={_RESTRICTED_APIS}{'' if options.http_inference else ',inference'}:{admin}",
        f"--grpc-restricted-protocol={_RESTRICTED_APIS}:{admin}",
        f"--grpc-header-forward-pattern=^{GRPC_ADMIN_HEADER}$",  # as far as _request_guard.cpp
        f"--backend-config=python,stub-timeout-seconds={_STUB_TIMEOUT_S}",
        f"--backend-config=python,shm-region-prefix-name={region}",
        *(() if has_gpu() else ("--allow-gpu-metrics=false", "--pinned-memory-pool-byte-size=0")),
        *triton_trace_options(os.environ),
        *(options.tls.arguments() if options.tls is not None else ()),
    ]


def _is_plain(path: Path) -> bool:
    """Whether a shell takes a path as it is."""
    return shlex.quote(str(path)) == str(path)
