"""`nann query`."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from nann.errors import ConfigError, NannError
from nann.item_ids import NUMBERS, IdKind, kind_of
from nann.search_params import REQUEST_PARAMETERS, SearchOptions
from nann.signature import STATUS_COMPLETE, STATUS_NAMES

from .support import (
    DEFAULT_BUNDLE,
    JsonOption,
    TlsCaOption,
    TlsCertOption,
    TlsKeyOption,
    TlsOption,
    console,
    output,
    parse_integers,
    print_json,
    tls_of,
    with_search_options,
)

if TYPE_CHECKING:
    from nann.bundle import Bundle

    from ..clients import RetrievalClient, RetrievalResult

_DEFAULT_PORTS = {"grpc": 8001, "http": 8000}


@with_search_options(REQUEST_PARAMETERS)
def query(
    user: Annotated[
        list[str] | None,
        typer.Option(help="Id of a user, whose history the server's store has. Repeat the option for more users."),
    ] = None,
    ids: Annotated[
        list[str] | None,
        typer.Option(
            help="Item ids of one user, oldest first: 11,12,13, or sku-1,sku-2 where the server's ids are text; one "
            'with a comma in double quotes: sku-1,"a,b". Repeat the option for more users. With --user they come after '
            "the stored history.",
        ),
    ] = None,
    url: Annotated[
        str | None, typer.Option(help="host:port of the server. Default: 127.0.0.1 and the protocol's usual port.")
    ] = None,
    protocol: Annotated[str, typer.Option(help="grpc or http.")] = "grpc",
    priority: Annotated[int, typer.Option(help="1: important, 2: usual, 3: may wait, 0: the server's default.")] = 0,
    profile: Annotated[
        str | None, typer.Option(help="Codes of the user profile, one per field, if the data set has one.")
    ] = None,
    exclude: Annotated[
        str | None, typer.Option(help="Item ids that may not be returned to any of the users: 11,12.")
    ] = None,
    allow: Annotated[str | None, typer.Option(help="Return nothing but these item ids: 11,12.")] = None,
    bundle: Annotated[
        Path | None,
        typer.Option(help=f"Bundle to read item names from. Default: {DEFAULT_BUNDLE}, if it is the one that answers."),
    ] = None,
    tls: TlsOption = False,
    tls_ca: TlsCaOption = None,
    tls_cert: TlsCertOption = None,
    tls_key: TlsKeyOption = None,
    timeout_s: Annotated[float, typer.Option(help="How long to wait for the answer, in seconds.")] = 10.0,
    json: JsonOption = False,
    **search: Any,
) -> None:
    """Ask a running server for the best items of a user.

    Ids that the server does not know are dropped and counted. A search option that is not given has the value that the
    bundle recommends. Without --deadline-ms the deadline is nine tenths of the timeout.
    """
    from ..clients import RetrievalClient

    if not (user or ids) or (user and ids and len(user) != len(ids)):
        raise ConfigError(
            f"{len(user or ()):,} --user and {len(ids or ()):,} --ids are given; expected one of both for each user, "
            "or as many of both"
        )
    codes = parse_integers("--profile", profile)
    named = _named_bundle(bundle)
    address = url or f"127.0.0.1:{_DEFAULT_PORTS.get(protocol, 8001)}"
    trust = tls_of(tls, tls_ca, tls_cert, tls_key)
    with RetrievalClient(address, protocol, timeout_s, retry=False, tls=trust) as client:
        kind = NUMBERS
        with contextlib.suppress(NannError):  # if no server answers, the request below says so
            kind = client.id_kind()
        histories = [_parsed("--ids", text, kind) for text in ids] if ids else None
        users = len(user or ids or ())
        result = client.retrieve(
            histories,
            SearchOptions(**search),
            user_id=user or None,
            user_profile=None if codes is None else [codes] * users,
            exclude_item_ids=None if exclude is None else _parsed("--exclude", exclude, kind),
            allow_item_ids=None if allow is None else _parsed("--allow", allow, kind),
            priority=priority,
        )
        names = {} if named is None else _item_names(named, client, chosen=bundle is not None)
    answers = [{"user": user[row] if user else None, **_answer(result, row, names)} for row in range(users)]
    for answer in answers:
        _print_answer(answer)
    console.print(f"{users} user(s) over {protocol} in {result.latency_ms:.1f} ms")
    if json:
        print_json({"protocol": protocol, "latency_ms": result.latency_ms, "users": answers})


def _parsed(option: str, text: str, kind: IdKind) -> list[Any]:
    try:
        return kind.parse(text)
    except ValueError as error:
        raise ConfigError(f"{option} is {text!r}; expected item ids as the server has them: {kind.words}") from error


def _answer(result: RetrievalResult, row: int, names: dict[Any, str]) -> dict[str, Any]:
    """One user's part of the result, without padding."""
    ids = result.item_ids[row]
    kind = kind_of(ids)
    items = [
        {"item_id": item, "name": names.get(item), "score": score}
        for item, score, padded in zip(kind.plain(ids), result.scores[row].tolist(), kind.is_padding(ids), strict=True)
        if not padded
    ]
    return {
        "items": items,
        "unknown_items": int(result.unknown_items[row]),
        "items_scored": int(result.items_scored[row]),
        "items_matching": int(result.items_matching[row]),
        "status": STATUS_NAMES[result.status[row]],
        "stored_items": int(result.stored_items[row]),
    }


def _print_answer(answer: dict[str, Any]) -> None:
    unknown = f", {answer['unknown_items']} ids unknown" if answer["unknown_items"] else ""
    status = "" if answer["status"] == STATUS_NAMES[STATUS_COMPLETE] else f", {answer['status']}"
    counts = f"{answer['items_scored']:,} of {answer['items_matching']:,} items scored"
    stored = f", {answer['stored_items']} stored behaviours read" if answer["stored_items"] > 0 else ""
    if answer["user"] is not None and answer["stored_items"] == 0:
        stored = f", the store knows no behaviours of user {answer['user']}"
    table = Table(caption=f"{counts}{stored}{unknown}{status}", caption_justify="left")
    for heading in ("rank", "item id", "item", "score"):
        table.add_column(heading, justify="left" if heading == "item" else "right")
    for rank, item in enumerate(answer["items"], 1):
        table.add_row(str(rank), escape(str(item["item_id"])), escape(item["name"] or ""), f"{item['score']:.4f}")
    output.print(table)


def _named_bundle(path: Path | None) -> Bundle | None:
    """The bundle to read names from, no file of it verified yet; None: there is none."""
    from nann.bundle import Bundle
    from nann.manifest import MANIFEST_FILE

    if path is None and not (DEFAULT_BUNDLE / MANIFEST_FILE).exists():
        return None
    return Bundle.open(path or DEFAULT_BUNDLE, ())


def _item_names(bundle: Bundle, client: RetrievalClient, *, chosen: bool) -> dict[Any, str]:
    """Item names by external id; empty where there are none, or, unless it was chosen, if another bundle answers."""
    from nann.bundle import ITEM_IDS_FILE, ITEM_NAMES_FILE, Bundle

    if ITEM_NAMES_FILE not in bundle.manifest["files"]:
        return {}
    answering = None
    with contextlib.suppress(NannError):  # the answer is there: a proxy that lets only requests pass must not spoil it
        answering = client.bundle_id()
    if answering != bundle.bundle_id:
        used = "its names are shown as you chose it" if chosen else "no names are shown: pass the right one as --bundle"
        other = answering or "one that it does not name"
        console.print(f"{bundle.path} is bundle {bundle.bundle_id}, and the server answers from {other}; {used}")
        if not chosen:
            return {}
    bundle = Bundle.open(bundle.path, (ITEM_IDS_FILE, ITEM_NAMES_FILE))
    return dict(zip(bundle.id_kind.plain(bundle.item_ids), bundle.item_names or (), strict=True))
