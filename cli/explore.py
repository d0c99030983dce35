"""`nann explore`."""

from __future__ import annotations

import json as json_text
import signal
import socket
import subprocess
import sys
import webbrowser
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nann.errors import ConfigError, ServerError
from nann.packages import find_package

from .support import (
    DEFAULT_BUNDLE,
    DEFAULT_REPOSITORY,
    JsonOption,
    RepositoryOption,
    TlsCaOption,
    TlsCertOption,
    TlsKeyOption,
    TlsOption,
    console,
    print_json,
    tls_of,
)

if TYPE_CHECKING:
    from ..clients import Tls
    from ..explore.corpus import Corpus
    from ..explore.explorer import Addresses, Explorer
    from ..explore.people import HeldOutUsers
    from ..explore.replay import Replay

DEFAULT_DATA = Path("build/data/complete_journey")
_LOCAL, _ANY = "127.0.0.1", "*"
_GRPC_PORT, _HTTP_PORT, _METRICS_PORT = 8001, 8000, 8002
_STOP_WITHIN_S = 30.0


def explore(
    url: Annotated[
        str | None,
        typer.Option(
            help="gRPC address of a server, host:port. Default: the one at 127.0.0.1:8001; if none answers there, "
            "`nann serve` is started with --repository and --bundle, and stopped in the end.",
            show_default=False,
        ),
    ] = None,
    http_url: Annotated[
        str | None,
        typer.Option(
            help="Its HTTP address, for commands to copy: host:port, or https://host:port of a proxy. Default: port "
            "8000 of the host of --url.",
            show_default=False,
        ),
    ] = None,
    metrics_url: Annotated[
        str | None,
        typer.Option(
            help="Address of its metrics, in the same forms. Default: port 8002 of the host of --url.",
            show_default=False,
        ),
    ] = None,
    tls: TlsOption = False,
    tls_ca: TlsCaOption = None,
    tls_cert: TlsCertOption = None,
    tls_key: TlsKeyOption = None,
    bundle: Annotated[
        Path, typer.Option(help="Bundle that the server answers from: names, item vectors and models are read from it.")
    ] = DEFAULT_BUNDLE,
    repository: RepositoryOption = DEFAULT_REPOSITORY,
    histories: Annotated[
        str | None,
        typer.Option(
            help="Store of users' histories, for a server that is started; see `nann serve`.",
            envvar="NANN_HISTORIES",
            show_default=False,
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            help=f"Prepared data set, for random test users. Default: {DEFAULT_DATA}, if it exists.", show_default=False
        ),
    ] = None,
    cache: Annotated[Path, typer.Option(help="Folder for the picture's projection.")] = Path("build/explore"),
    host: Annotated[
        str, typer.Option(help="Address to bind to. The default can't be reached from other machines.")
    ] = _LOCAL,
    port: Annotated[int, typer.Option(min=0, max=65_535, help="Port of the page; 0: any that is free.")] = 8080,
    open_page: Annotated[
        bool | None,
        typer.Option(
            "--open/--no-open", help="Open the page in a browser. Default: at a terminal.", show_default=False
        ),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Show the retrieval on a page: ask, see the walk through the graph, turn the dials, compare, watch the server.

    The page is at http://127.0.0.1:8080, until Ctrl-C. It reads and changes nothing.

    With a --tls option a server is joined, and none is started.
    """
    import uvicorn

    from ..explore.app import make_app

    trust = tls_of(tls, tls_ca, tls_cert, tls_key)
    with (
        closing(_listening(host, port)) as listening,
        _interrupted_by_sigterm(),
        suppress(KeyboardInterrupt),
    ):
        corpus, data = _corpus(bundle, cache), _data_set(data)  # before a server is waited for: it takes a moment too
        options = _serve_options(repository, bundle, histories)
        with _server(url, http_url, metrics_url, trust, options) as addresses:
            explorer = _explorer(addresses, trust, corpus, repository, data)
            here = _page_url(host, listening.getsockname()[1])
            console.print(f"{here} shows bundle {bundle} and the server at {addresses.grpc}; Ctrl-C ends it")
            if _hosts(host) == [_ANY]:
                console.print("whoever reaches this machine may open the page, and ask the server through it")
            if json:
                print_json({"url": here, **vars(addresses)})
            if sys.stdout.isatty() if open_page is None else open_page:
                webbrowser.open(here)
            config = uvicorn.Config(make_app(explorer, _hosts(host)), log_level="warning", lifespan="on")
            uvicorn.Server(config).run([listening])


def _listening(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise ConfigError(
            f"{host}:{port} can't be listened at: {error.strerror}; choose another --port, or --host"
        ) from error


def _page_url(host: str, port: int) -> str:
    """What this machine's browser opens."""
    name = _LOCAL if _hosts(host) == [_ANY] else host
    return f"http://[{name}]:{port}" if ":" in name else f"http://{name}:{port}"


def _hosts(host: str) -> list[str]:
    """By which names the page may be asked for. Who binds it to all addresses wants to be asked by any."""
    if host in ("0.0.0.0", "::", ""):  # noqa: S104
        return [_ANY]
    return [f"[{host}]" if ":" in host else host, _LOCAL, "localhost"]


@contextmanager
def _interrupted_by_sigterm() -> Iterator[None]:
    """SIGTERM ends the command as Ctrl-C does, so that a server that it started is stopped."""

    def interrupt(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _serve_options(repository: Path, bundle: Path, histories: str | None) -> list[str]:
    ports = {"--grpc-port": _GRPC_PORT, "--http-port": _HTTP_PORT, "--metrics-port": _METRICS_PORT}
    given = {"--repository": repository, "--bundle": bundle, "--histories": histories, **ports}
    return ["--json", *(str(word) for pair in given.items() if pair[1] is not None for word in pair)]


@contextmanager
def _server(
    url: str | None, http_url: str | None, metrics_url: str | None, trust: Tls | None, options: Sequence[str]
) -> Iterator[Addresses]:
    """The addresses of the server to join, or of one that runs, with these options, as long as the block."""
    from ..explore.explorer import Addresses

    joined = url or f"{_LOCAL}:{_GRPC_PORT}"
    ready = _is_ready(joined, trust)
    if url is not None or trust is not None or ready:
        if not ready:
            console.print(f"no server answers at {joined} yet{'' if trust is None else ', over TLS'}")
        host = joined.partition(",")[0].strip().rpartition(":")[0]  # of several servers the first
        yield Addresses(joined, http_url or f"{host}:{_HTTP_PORT}", metrics_url or f"{host}:{_METRICS_PORT}")
        return
    console.print(f"no server at {joined}: starting `nann serve`")
    with subprocess.Popen(
        [sys.executable, "-m", "nann", "serve", *options], stdout=subprocess.PIPE, text=True
    ) as server:
        try:
            assert server.stdout is not None
            line = server.stdout.readline()
            if not line:
                raise ServerError(f"`nann serve` ended with exit code {server.wait()}; its last lines say why")
            started = json_text.loads(line)
            metrics = str(started["metrics"]).removeprefix("http://").removesuffix("/metrics")
            yield Addresses(started["grpc"], started["http"], metrics)
        finally:
            server.terminate()
            server.wait(_STOP_WITHIN_S)


def _is_ready(address: str, trust: Tls | None) -> bool:
    from ..clients import RetrievalClient

    with RetrievalClient(address, timeout_s=1.0, retry=False, tls=trust) as client:
        return client.is_ready()


def _corpus(bundle: Path, cache: Path) -> Corpus:
    from nann.bundle import Bundle

    from ..explore.corpus import Corpus

    return Corpus(Bundle.open(bundle, ()), cache)  # the server verifies the files that it answers from


def _data_set(path: Path | None) -> Path | None:
    """That of the test users, if there is one. What is wrong with it is said now rather than in the page."""
    if path is None and not DEFAULT_DATA.is_dir():
        return None
    find_package("polars")
    from ..training.data.prepared import read_manifest

    found = DEFAULT_DATA if path is None else path
    read_manifest(found)
    return found


def _explorer(addresses: Addresses, trust: Tls | None, corpus: Corpus, repository: Path, data: Path | None) -> Explorer:
    from nann.filters import NamedFilters

    from ..explore.explorer import Explorer
    from ..python_backend.histories.opening import open_histories, recorded_address

    operator = NamedFilters.of_repository(repository)

    def replay() -> Replay:
        from ..explore.replay import Replay

        store = recorded_address(repository)
        return Replay(corpus.bundle, None if store is None else open_histories(store, 1.0), operator)

    def people() -> HeldOutUsers:
        from ..explore.people import HeldOutUsers

        assert data is not None
        return HeldOutUsers(data, corpus.bundle)

    return Explorer(addresses, corpus, replay, None if data is None else people, trust=trust, operator=operator)
