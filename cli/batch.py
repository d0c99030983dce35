"""`nann batch`."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from nann.errors import ConfigError
from nann.item_ids import IdKind
from nann.search_params import CONDITIONS, SEARCH_PARAMETERS, SearchOptions

from .support import (
    JsonOption,
    TlsCaOption,
    TlsCertOption,
    TlsKeyOption,
    TlsOption,
    console,
    output,
    print_json,
    tls_of,
    with_search_options,
)

if TYPE_CHECKING:
    from ..training.batch.answers import Answers
    from ..training.batch.histories import Histories


@with_search_options({**SEARCH_PARAMETERS, **CONDITIONS})
def batch(
    out: Annotated[Path, typer.Option(help="Folder for the answers, as Parquet files.")],
    histories: Annotated[
        Path | None,
        typer.Option(
            help="Parquet, CSV or JSON lines with the columns `user` and `items`, a list of item ids, oldest first."
        ),
    ] = None,
    data: Annotated[Path | None, typer.Option(help="Prepared data set: all its users, with all that they did.")] = None,
    users: Annotated[Path | None, typer.Option(help="Text file with one user a line: only these.")] = None,
    bundle: Annotated[Path | None, typer.Option(help="Search this bundle, without a server.")] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="With --bundle: so many processes on Ray, of one core each.")
    ] = None,
    ray: Annotated[
        str | None, typer.Option(help="With --workers: address of a Ray cluster. Default: Ray on this machine.")
    ] = None,
    url: Annotated[str | None, typer.Option(help="Ask servers: host:port, several separated by commas.")] = None,
    protocol: Annotated[str, typer.Option(help="With --url: grpc or http.")] = "grpc",
    in_flight: Annotated[int, typer.Option(min=1, help="With --url: the most requests at the same time.")] = 8,
    timeout_s: Annotated[float, typer.Option(help="With --url: for each request, in seconds.")] = 60.0,
    tls: TlsOption = False,
    tls_ca: TlsCaOption = None,
    tls_cert: TlsCertOption = None,
    tls_key: TlsKeyOption = None,
    part_users: Annotated[int, typer.Option(min=1, help="Users in one Parquet file.")] = 10_000,
    profiles: Annotated[
        bool, typer.Option("--profiles/--no-profiles", help="Use the user profiles of the data set.")
    ] = True,
    json: JsonOption = False,
    **search: Any,
) -> None:
    """Answer many users at once, into Parquet files.

    The users come from --histories or --data. The answers come from a bundle in this process (--bundle), from several
    processes on Ray (--bundle --workers), or from servers (--url); they are the same. Run the same command again to go
    on with a job that was interrupted: files that are complete are kept. A search option that is not given has the
    value that the bundle recommends.
    """
    from ..training.batch.parts import Parts, write_parts

    if (histories is None) == (data is None):
        raise ConfigError("the users come from --histories or from --data; expected one of them")
    if (bundle is None) == (url is None):
        raise ConfigError("the answers come from --bundle or from --url; expected one of them")
    if (workers and bundle is None) or (ray and not workers):
        raise ConfigError("--workers goes with --bundle, and --ray with --workers; expected all that one needs")
    options, trust = SearchOptions(**search), tls_of(tls, tls_ca, tls_cert, tls_key)
    if trust is not None and url is None:
        raise ConfigError("a --tls option came without --url; it is for servers")
    addresses = [] if url is None else [address.strip() for address in url.split(",")]
    served = {
        "addresses": addresses,
        "protocol": protocol,
        "timeout_s": timeout_s,
        "in_flight": in_flight,
        "tls": trust,
    }
    with _answering(bundle, options, workers, ray, served) as answering:
        asked = _histories(histories, data, users, answering.id_kind, profiles)
        job = {**answering.job, "options": options.to_parameters(), "users_hash": asked.digest}
        parts = Parts.open(out, len(asked), part_users, job)
        there = len(asked) - sum(map(len, parts.missing()))
        start_s = time.monotonic()
        with _progress(len(asked), there) as progress:
            answered, unknown = write_parts(
                parts, asked, answering.block, answering.answers, check=answering.check, progress=progress
            )
        seconds = time.monotonic() - start_s
    found = {"users": len(asked), "answered": answered, "unknown_items": unknown, "seconds": seconds}
    body = {**found, "users_per_s": answered / seconds if answered else 0.0, "out": str(out), "job": job}
    _say(body, there)
    if json:
        print_json(body)


def _say(body: Mapping[str, Any], there: int) -> None:
    """The outcome in words; `there` users had been answered before."""
    before = f", {there:,} were there before" if there else ""
    line = f"{body['answered']:,} users answered into {body['out']}{before}: {body['users_per_s']:,.0f} users/s"
    output.print(line, highlight=False)
    if unknown := body["unknown_items"]:
        console.print(
            f"the bundle does not know {unknown:,} items of their histories, which count for nothing", highlight=False
        )


@dataclass(frozen=True)
class _Answering:
    """Who answers.

    Attributes:
        id_kind: of the item ids.
        job: what decides the answers, besides options and users.
        block: users that are asked for at once.
        answers: gives those of each block.
        check: raises if answers may not be kept any more.
    """

    id_kind: IdKind
    job: dict[str, Any]
    block: int
    answers: Callable[[Iterable[Histories]], Iterator[Answers]]
    check: Callable[[], None] = lambda: None


@contextlib.contextmanager
def _answering(
    bundle: Path | None, options: SearchOptions, workers: int | None, ray: str | None, served: dict[str, Any]
) -> Iterator[_Answering]:
    if bundle is None:
        from ..training.batch import histories  # noqa: F401 - what is missing for files is told before a server is asked
        from .batch_served import BLOCK, ServedAnswers

        with ServedAnswers(options=options, **served) as servers:
            job: dict[str, Any] = {**servers.bundle._asdict(), "search": None}
            yield _Answering(servers.id_kind, job, BLOCK, servers.answers, servers.check)
        return
    from ..training.batch.answers import USER_BLOCK, BundleAnswers, SearchedBundle

    found = SearchedBundle(bundle, options)
    job = {"bundle_id": found.bundle.bundle_id, "search": asdict(found.params)}
    if workers is None:
        yield _Answering(found.bundle.id_kind, job, USER_BLOCK, BundleAnswers(found).answers)
        return
    from ..training.batch.on_ray import BLOCK as RAY_BLOCK
    from ..training.batch.on_ray import RayAnswers

    with RayAnswers(bundle, options, workers, ray) as actors:
        yield _Answering(found.bundle.id_kind, job, RAY_BLOCK, actors.answers)


def _histories(table: Path | None, data: Path | None, users: Path | None, kind: IdKind, profiles: bool) -> Histories:
    from ..training.batch.histories import Histories, read_histories, read_users
    from ..training.data.prepared import PreparedData

    if table is not None:
        found = read_histories(table, kind)
    else:
        assert data is not None
        found = Histories.of_data(PreparedData.load(data), profiles=profiles)
    return found if users is None else found.of_users(read_users(users))


@contextlib.contextmanager
def _progress(total: int, there: int) -> Iterator[Callable[[int], None]]:
    columns = (TextColumn("users"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("users", total=total, completed=there)
        yield lambda users: progress.update(task, advance=users)
