"""`nann serve`."""

from __future__ import annotations

import json as json_text
import os
import shlex
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from nann.signature import BEHAVIOR_ITEM_IDS

from .support import DEFAULT_REPOSITORY, AdminKeyOption, RepositoryOption, console, print_json

if TYPE_CHECKING:
    from nann.bundle import Bundle

    from ..python_backend.server.triton import ServerOptions, TritonServer

NO_HISTORIES = "none"
"""Of --histories: the server asks no store any more."""
LOG_FILE = "triton.log"
"""Triton's log at a terminal, in the repository."""


def serve(
    bundle: Annotated[
        Path | None,
        typer.Option(
            help="Bundle, from `nann index` and `nann export`. If it is new to the repository, it becomes the current "
            "version. Default: build/bundle, if it exists.",
            show_default=False,
        ),
    ] = None,
    repository: RepositoryOption = DEFAULT_REPOSITORY,
    host: Annotated[
        str, typer.Option(help="Address to bind to. The default can't be reached from other machines.")
    ] = "127.0.0.1",
    http_port: Annotated[int, typer.Option(help="KServe V2 over HTTP.")] = 8000,
    grpc_port: Annotated[int, typer.Option(help="KServe V2 over gRPC.")] = 8001,
    metrics_port: Annotated[int, typer.Option(help="Prometheus metrics.")] = 8002,
    target: Annotated[
        str,
        typer.Option(
            help="What runs user encoder and scorer: embedded (on the CPU, see --engine), torch (GPU or CPU), or, if "
            "Triton has a backend of that name, tensorrt or onnxruntime."
        ),
    ] = "embedded",
    steps: Annotated[
        str,
        typer.Option(
            help="Into which processes a request is divided: one (all in one, the fastest without a GPU), two (all but "
            "the scorer, which is called), separate (one for each step), or auto: one without a GPU, else separate. "
            "one and two need the target embedded.",
            envvar="NANN_STEPS",
        ),
    ] = "auto",
    instances: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="With --steps one or two: how many processes search side by side. Default: one for each core, as far "
            "as their weights take little memory.",
            envvar="NANN_INSTANCES",
            show_default=False,
        ),
    ] = None,
    engine: Annotated[
        str | None,
        typer.Option(
            help="What runs the scorer on a CPU, with the target embedded: onnxruntime, native (the product's own "
            "networks, in bfloat16), openvino (bfloat16), or auto: one that keeps 99% of the exact best items, in 90% "
            "of onnxruntime's time at most. It is recorded in the repository. Default: what was recorded, or auto.",
            envvar="NANN_ENGINE",
            show_default=False,
        ),
    ] = None,
    plans: Annotated[
        Path | None, typer.Option(help="TensorRT plans from `nann build-engine`, for the target tensorrt.")
    ] = None,
    tls_cert: Annotated[
        Path | None,
        typer.Option(
            help="Certificate for gRPC, in PEM form. HTTP, which has no TLS in Triton, is then bound to loopback."
        ),
    ] = None,
    tls_key: Annotated[Path | None, typer.Option(help="Private key of --tls-cert.")] = None,
    tls_ca: Annotated[
        Path | None, typer.Option(help="Certificates that sign the clients' certificates; other clients are refused.")
    ] = None,
    http_inference: Annotated[
        bool,
        typer.Option(
            help="Whether clients may ask over HTTP. Health and metadata stay there, and what needs the admin key."
        ),
    ] = True,
    admin_key_file: AdminKeyOption = None,
    catalog_stream: Annotated[
        str | None,
        typer.Option(
            help="Redis stream by which servers with repositories of their own agree on their items: "
            "redis://HOST:6379/0/KEY, or rediss:// for TLS. NANN_REDIS_PASSWORD has its password, or "
            "NANN_REDIS_PASSWORD_FILE names a file that has it.",
            envvar="NANN_CATALOG_STREAM",
        ),
    ] = None,
    histories: Annotated[
        str | None,
        typer.Option(
            help="Where the histories of users are, for requests with a user_id: a folder that `nann prepare` or `nann "
            "events` wrote, redis://HOST:6379/0, or feast:FOLDER. It is recorded in the repository; 'none' removes it.",
            envvar="NANN_HISTORIES",
            show_default=False,
        ),
    ] = None,
    log_file: Annotated[
        Path | None,
        typer.Option(
            help=f"File for Triton's log. Default: at a terminal {LOG_FILE} in the repository, else standard error.",
            show_default=False,
        ),
    ] = None,
    json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object on standard output once the server is ready.")
    ] = False,
) -> None:
    """Serve the current version of a model repository with Triton, until Ctrl-C or SIGTERM.

    A restart with the same `--bundle` serves the version that `nann deploy` or `nann rollback` made current last.
    Everything that the server needs is verified before it starts: if a file of the bundle is missing or changed, or a
    port is taken, the command ends and says what to do.
    """
    from ..python_backend.engines.recorded import checked_engine
    from ..python_backend.server.admin_key import read_admin_key
    from ..python_backend.server.served_form import chosen_steps
    from ..python_backend.server.tls import ServerTls
    from ..python_backend.server.triton import ServerOptions
    from ..python_backend.server.triton_install import find_triton, has_gpu

    find_triton().check_target(target)
    divided, said = chosen_steps(steps, target, has_gpu(), instances)
    if engine is not None:
        checked_engine(engine)
    tls = ServerTls.of_options(tls_cert, tls_key, tls_ca)
    options = ServerOptions(
        repository,
        host,
        http_port,
        grpc_port,
        metrics_port,
        target,
        log_file,
        admin_key=read_admin_key(admin_key_file),
        tls=tls,
        http_inference=http_inference,
        catalog_stream=catalog_stream or None,
        steps=divided,
    )
    _check(options, histories)
    try:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, _stop)
        version = _prepare(options, bundle, plans, instances, engine, histories)
        _run(_with_log(options), version, said, json)
    except _Stopped:
        console.print("stopped")


def _check(options: ServerOptions, histories: str | None) -> None:
    """Refuses what the server could not use, before the repository is touched; Redis may be away."""
    from ..python_backend.histories.opening import open_histories
    from ..python_backend.server.ports import check_ports

    if options.catalog_stream is not None:
        from ..python_backend.catalog_stream import CatalogStream  # imports redis, an extra

        CatalogStream(options.catalog_stream).close()
    check_ports(options.host, options.ports)
    if histories is not None and histories != NO_HISTORIES:
        open_histories(histories, 1.0).close()


def _prepare(
    options: ServerOptions,
    bundle: Path | None,
    plans: Path | None,
    instances: int | None,
    engine: str | None,
    histories: str | None,
) -> int:
    """Installs the bundle if it is new, and records the options in the repository; the version to serve."""
    from ..python_backend.engines.recorded import record_engine
    from ..python_backend.histories.opening import record_address
    from ..python_backend.repository.configs import check_target
    from ..python_backend.repository.install import install_if_new, set_instances
    from ..python_backend.version_folder import SEPARATE

    repository = options.repository
    version = install_if_new(bundle, repository, plans)
    check_target(repository, options.target)
    if options.steps != SEPARATE:
        set_instances(repository, options.steps, instances)
    if engine is not None:
        record_engine(repository, engine)
    if histories is not None:
        record_address(repository, None if histories == NO_HISTORIES else histories)
    return version


def _with_log(options: ServerOptions) -> ServerOptions:
    """At a terminal Triton's log goes into a file of the repository, which must be there by now."""
    if options.log_file is None and sys.stderr.isatty() and os.access(options.repository, os.W_OK):
        return replace(options, log_file=options.repository / LOG_FILE)
    return options


def _run(options: ServerOptions, version: int, divided: str, json: bool) -> None:
    """Serves until the server ends or a signal comes; `divided` says in words how a request is divided."""
    from ..python_backend.histories.opening import recorded_address
    from ..python_backend.repository.install import current_bundle
    from ..python_backend.server.triton import TritonServer

    opened = current_bundle(options.repository)
    line = f"version {version} of {options.repository}: bundle {opened.bundle_id} ({opened.item_count:,} items)"
    console.print(line, soft_wrap=True)
    console.print(divided, soft_wrap=True, markup=False, highlight=False)
    with TritonServer(options) as server:
        look_after = _look_after(server)  # asks the server, so before anybody is told to rely on it
        _welcome(server, opened)
        if json:
            print_json(_described(server, version, opened) | {"histories": recorded_address(options.repository)})
        server.wait(look_after)


def _described(server: TritonServer, version: int, bundle: Bundle) -> dict[str, object]:
    return {
        "version": version,
        "bundle": bundle.bundle_id,
        "items": bundle.item_count,
        "grpc": server.grpc_url,
        "http": server.http_url,
        "metrics": f"http://{server.metrics_url}/metrics",
        "log": None if server.options.log_file is None else str(server.options.log_file),
        "pid": os.getpid(),
        "steps": server.options.steps,
    }


class _Stopped(BaseException):
    """A signal asks this process to stop."""


def _stop(_number: int, _frame: FrameType | None) -> None:
    # Stopping takes a moment and must not be interrupted by a second Ctrl-C.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    raise _Stopped


def _look_after(server: TritonServer) -> Callable[[], None]:
    """What to call repeatedly while the server runs."""
    from ..python_backend.repository.versions import models_locked
    from ..python_backend.server.stub_supervisor import StubSupervisor
    from ..python_backend.version_history import Versions

    if (pid := server.pid) is None:  # it has stopped already: `wait` says so
        return lambda: None
    say = partial(console.print, soft_wrap=True, markup=False)
    repository = server.options.repository
    return StubSupervisor(
        pid,
        repository,
        server.control,
        say,
        server.set_ready,
        lambda: Versions.read(repository).current,
        partial(models_locked, repository),
    ).check


def _welcome(server: TritonServer, bundle: Bundle) -> None:
    from ..python_backend.histories.opening import recorded_address

    histories = recorded_address(server.options.repository)
    kind = bundle.id_kind
    example = kind.plain(bundle.item_ids[:3])
    tensor = kind.spec(BEHAVIOR_ITEM_IDS)
    inputs = {"name": tensor.name, "datatype": tensor.triton_dtype, "shape": [1, len(example)], "data": example}
    body = json_text.dumps({"inputs": [inputs], "parameters": {"top_k": 5}}, separators=(",", ":"), ensure_ascii=False)
    lines = (
        f"gRPC     {server.grpc_url}",
        f"HTTP     {server.http_url}",
        f"metrics  http://{server.metrics_url}/metrics",
        *(() if server.options.log_file is None else (f"log      {server.options.log_file}",)),
        *(() if histories is None else (f"users    {histories}",)),
        "",
        f"nann query --url {server.grpc_url} --ids {shlex.quote(kind.typed(example))}",
        *(
            (f"curl {server.http_url}/v2/models/nann/infer -d {shlex.quote(body)}",)
            if server.options.http_inference
            else ()
        ),
        "",
        "Ctrl-C stops the server.",
    )
    for line in lines:
        console.print(line, soft_wrap=True, markup=False, highlight=False)
