"""What commands share: common options, output for people and for programs."""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from rich.console import Console
from rich.table import Table

from nann.durable_files import finite
from nann.errors import ConfigError
from nann.packages import find_package
from nann.search_params import RequestParameter

if TYPE_CHECKING:
    from nann.bundle import Bundle

    from ..clients import Tls
    from ..python_backend.server.control import ModelControl

Command = TypeVar("Command", bound=Callable[..., None])

DEFAULT_BUNDLE = Path("build/bundle")
DEFAULT_CHECKPOINT = Path("build/train/checkpoint.pt")
BundleOption = Annotated[Path, typer.Option(help="Bundle, from `nann index` and `nann export`.")]
TrainedDataOption = Annotated[Path, typer.Option(help="Prepared data set that the checkpoint was trained on.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line of standard output.")]

RepositoryOption = Annotated[Path, typer.Option(help="Model repository: the folder that Triton serves.")]
DEFAULT_REPOSITORY = Path("build/model_repository")
AdminKeyOption = Annotated[
    Path | None,
    typer.Option(
        help="File with the key that `nann deploy`, `rollback`, `refresh --deploy`, `items` and `filters --url` "
        "need; only its owner may be able to read it. Default: the environment variable NANN_ADMIN_KEY, else a random "
        "key that is not shown.",
        show_default=False,
    ),
]
UrlOption = Annotated[str, typer.Option(help="HTTP address of the server, host:port.")]
DEFAULT_URL = "127.0.0.1:8000"

TlsOption = Annotated[bool, typer.Option("--tls", help="Use TLS, and trust the system's certificate authorities.")]
TlsCaOption = Annotated[Path | None, typer.Option(help="Use TLS, and trust only these certificates.")]
TlsCertOption = Annotated[Path | None, typer.Option(help="Use TLS, and identify with this certificate.")]
TlsKeyOption = Annotated[Path | None, typer.Option(help="Private key of --tls-cert.")]

console = Console(stderr=True)
"""Progress and remarks, on standard error."""
output = Console()
"""Results for people, on standard output."""


def print_json(body: Mapping[str, Any]) -> None:
    """Prints one JSON object on one line of standard output; NaN and infinity, which JSON lacks, become null."""
    sys.stdout.write(json.dumps(finite(body), ensure_ascii=False, allow_nan=False) + "\n")
    sys.stdout.flush()


def make_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """A table for people, the first column to the left and the others to the right; without headings if all are ""."""
    table = Table(title=title, show_header=any(columns))
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left")
    for row in rows:
        table.add_row(*row)
    return table


def about_reachability(bundle: Bundle) -> str:
    """How many items share a vector, and how many no search can reach, from the bundle's notes."""
    noted = bundle.notes["reachability"]
    equal, missed = noted.get("items_with_another_items_vector", 0), noted["unreachable_items"]
    shared = f"{equal:,} items have another item's vector; " if equal else ""
    return shared + (f"no search can reach {missed:,} items" if missed else "searches can reach every item")


def say(line: str) -> None:
    """Prints a progress line, in bold where a study or a benchmark begins."""
    style = "bold" if line.startswith(("study", "benchmark")) else None
    console.print(line, style=style, highlight=False, markup=False)


def as_typed(command: str, **options: str | int | float | Path | None) -> str:
    """The command line; only the last part of a path is kept, since the rest means nothing on another machine."""
    given = ((name.replace("_", "-"), value) for name, value in options.items() if value is not None)
    return " ".join([command, *(f"--{name} {Path(str(value)).name}" for name, value in given)])


def tls_of(tls: bool, ca: Path | None, certificate: Path | None, key: Path | None) -> Tls | None:
    """How a client trusts a server, by the options --tls, --tls-ca, --tls-cert and --tls-key; None: without TLS.

    Raises:
        ConfigError: if the files do not fit together, or one is missing.
    """
    from ..clients import Tls

    return Tls(ca, certificate, key) if tls or ca or certificate or key else None


def model_control(url: str, admin_key_file: Path | None) -> ModelControl:
    """Control of a running server, with the key from this file or from the environment."""
    from ..python_backend.server.admin_key import read_admin_key
    from ..python_backend.server.control import ModelControl

    return ModelControl(url, read_admin_key(admin_key_file))


def find_serving() -> None:
    """Checks that a server and its client can run, before minutes of training rather than after.

    Raises:
        ModuleNotFoundError: naming a package that is not installed.
        ServerError: if Triton is not complete.
    """
    from ..python_backend.server.triton_install import find_triton

    find_triton()
    for package in ("hnswlib", "tritonclient"):
        find_package(package)


def parse_integers(option: str, text: str | None) -> tuple[int, ...] | None:
    """Reads "100,200,400"; None stays None.

    Raises:
        ConfigError: naming the option.
    """
    if text is None:
        return None
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise ConfigError(f'{option} is "{text}"; expected integers as in "100,200,400"') from error


def _option(name: str, parameter: RequestParameter) -> Any:
    if parameter.flag:
        return Annotated[bool | None, typer.Option(f"--{name.replace('_', '-')}", help=parameter.about)]
    kind = str if parameter.words or parameter.per_layer or parameter.text else int
    return Annotated[kind | None, typer.Option(help=parameter.about)]


def with_search_options(parameters: Mapping[str, RequestParameter]) -> Callable[[Command], Command]:
    """Replaces a command's `**` argument by one option for each of these request parameters."""
    return with_options({name: (_option(name, parameter), None) for name, parameter in parameters.items()})


def with_options(options: Mapping[str, tuple[Any, Any]]) -> Callable[[Command], Command]:
    """Replaces a command's `**` argument by options: name -> annotation and default.

    The command gets all of them, also from a caller in Python that names only some.
    """
    added = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
        for name, (annotation, default) in options.items()
    ]
    defaults = {option.name: option.default for option in added}

    def replace_options(command: Command) -> Command:
        @wraps(command)
        def run(*arguments: Any, **given: Any) -> None:
            command(*arguments, **{**defaults, **given})

        taken = inspect.signature(command, eval_str=True)
        *own, _ = taken.parameters.values()
        run.__signature__ = taken.replace(parameters=[*own, *added])  # type: ignore[attr-defined]
        return run  # type: ignore[return-value]

    return replace_options
