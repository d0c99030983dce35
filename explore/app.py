"""The page and its API over HTTP: read-only, for this machine unless told otherwise."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from nann.errors import (
    InvalidInputError,
    NannError,
    RequestError,
    RequestTimeout,
    ServerOverloaded,
    ServerUnavailable,
)

from .explorer import Explorer

STATIC = Path(__file__).parent / "static"
HEADERS = {
    "content-security-policy": "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-cache",
}
"""Of every answer: the page loads nothing from elsewhere, and nobody frames it."""
_KINDS: tuple[tuple[type[NannError], int, str], ...] = (
    (ServerUnavailable, 503, "away"),
    (ServerOverloaded, 429, "overloaded"),
    (RequestTimeout, 504, "late"),
    (InvalidInputError, 400, "refused"),
    (NannError, 502, "failed"),
)
"""Error, status and the word by which the page tells it apart; the first that fits counts."""
_MAX_BODY_BYTES = 1 << 20
_MOST_FOUND, _MOST_DIGITS = 12, 18


class _WithHeaders:
    """Adds `HEADERS` to every answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [
                    *message["headers"],
                    *((name.encode(), value.encode()) for name, value in HEADERS.items()),
                ]
            await send(message)

        await self._app(scope, receive, send_with_headers)


def make_app(explorer: Explorer, hosts: Sequence[str]) -> Starlette:
    """The application.

    Args:
        explorer: answers.
        hosts: names by which the page may be asked for. Others are refused, so that no page of the web reaches it by
            a name of its own that leads here.
    """
    answers = _Answers(explorer)

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        yield
        await explorer.close()

    routes = [
        Route("/", _page),
        Route("/api/points", answers.points),
        *(Route(f"/api/{name}", _json(answer), methods=[method]) for name, method, answer in answers.routes),
        Mount("/static", StaticFiles(directory=STATIC)),
    ]
    middleware = [Middleware(_WithHeaders), Middleware(TrustedHostMiddleware, allowed_hosts=list(hosts))]
    return Starlette(routes=routes, middleware=middleware, exception_handlers={NannError: _refusal}, lifespan=lifespan)


class _Answers:
    """One method for each thing to ask for."""

    def __init__(self, explorer: Explorer) -> None:
        self._explorer = explorer
        self.routes: tuple[tuple[str, str, Callable[[Request], Awaitable[Any]]], ...] = (
            ("about", "GET", lambda _: explorer.about()),
            ("filters", "GET", lambda _: explorer.filters()),
            ("status", "GET", lambda _: explorer.status()),
            ("health", "GET", lambda _: explorer.health()),
            ("random-user", "GET", lambda _: explorer.random_user()),
            ("names", "GET", self._names),
            ("items", "GET", self._items),
            ("query", "POST", self._query),
            ("walk", "POST", self._walk),
            ("compare", "POST", self._compare),
            ("snippets", "POST", self._snippets),
        )

    async def points(self, _request: Request) -> Response:
        return Response(await self._explorer.background(), media_type="application/octet-stream")

    async def _names(self, request: Request) -> Any:
        return await self._explorer.found(request.query_params.get("q", "")[:200], _MOST_FOUND)

    async def _items(self, request: Request) -> Any:
        numbers = [text for text in request.query_params.get("items", "").split(",") if text]
        whole = [int(text) if text.isdecimal() and len(text) <= _MOST_DIGITS else text for text in numbers]
        asked = self._explorer.asked({"items": whole})
        return await self._explorer.items(list(asked.items))

    async def _query(self, request: Request) -> Any:
        return await self._explorer.query(self._explorer.asked(await _body(request)))

    async def _walk(self, request: Request) -> Any:
        return await self._explorer.walk(self._explorer.asked(await _body(request)))

    async def _compare(self, request: Request) -> Any:
        body = await _body(request)
        answer = self._explorer.asked({"items": body.get("answer")}).items
        evaluations = body.get("evaluations")
        if type(evaluations) is not int or evaluations < 0:
            raise RequestError(f"evaluations is {evaluations!r}; expected how many items the answer scored")
        asked = self._explorer.asked(body.get("question"))
        return await self._explorer.compare(asked, list(answer), evaluations)

    async def _snippets(self, request: Request) -> Any:
        return self._explorer.snippets(self._explorer.asked(await _body(request)))


def _json(answer: Callable[[Request], Awaitable[Any]]) -> Callable[[Request], Awaitable[Response]]:
    async def answered(request: Request) -> Response:
        return JSONResponse(await answer(request))

    return answered


async def _body(request: Request) -> dict[str, Any]:
    """The JSON object of a request.

    Raises:
        RequestError: if it is none. Another page of the web can't send one without asking first, by its content type.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise RequestError(f"content-type is {request.headers.get('content-type')!r}; expected application/json")
    text = b""
    async for part in request.stream():
        text += part
        if len(text) > _MAX_BODY_BYTES:
            raise RequestError(f"the request has more than {_MAX_BODY_BYTES:,} bytes; expected a smaller one")
    try:
        body = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RequestError(f"the request is not JSON: {error}") from error
    if not isinstance(body, dict):
        raise RequestError("the request is not a JSON object; expected names and values")
    return body


async def _page(_request: Request) -> Response:
    return FileResponse(STATIC / "index.html")


async def _refusal(_request: Request, error: Exception) -> Response:
    status, kind = next((status, kind) for of, status, kind in _KINDS if isinstance(error, of))
    return JSONResponse({"kind": kind, "message": str(error)}, status)
