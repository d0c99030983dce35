"""The page of `nann explore` in this process, for tests."""

from __future__ import annotations

import contextlib
import json
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import uvicorn

from nann.bundle import Bundle
from nann.clients import Tls
from nann.explore.app import make_app
from nann.explore.corpus import Corpus
from nann.explore.explorer import Addresses, Explorer
from nann.explore.people import HeldOutUsers
from nann.explore.replay import Replay
from nann.filters import NamedFilters
from nann.python_backend.histories.opening import open_histories
from support.ports import free_ports
from support.waiting import wait_until


@dataclass
class Page:
    """A running page."""

    url: str

    def get(self, path: str, headers: Mapping[str, str] = {}) -> tuple[int, Any, Any]:
        """Status, headers and body, which is JSON or bytes."""
        return self._ask(urllib.request.Request(self.url + path, headers=dict(headers)))

    def post(self, path: str, body: Any, kind: str = "application/json") -> tuple[int, Any, Any]:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self._ask(urllib.request.Request(self.url + path, data, {"content-type": kind}))

    def _ask(self, request: urllib.request.Request) -> tuple[int, Any, Any]:
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, answer.headers, _read(answer)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.headers, _read(error)


def _read(answer: Any) -> Any:
    body = answer.read()
    return json.loads(body) if answer.headers.get("content-type") == "application/json" else body


@contextlib.contextmanager
def explored(
    bundle: Bundle,
    cache: Path,
    addresses: Addresses,
    *,
    histories: str | None = None,
    data: Path | None = None,
    timeout_s: float = 10.0,
    trust: Tls | None = None,
    repository: Path | None = None,
) -> Iterator[Page]:
    """The page of a bundle, beside whatever is at `addresses`.

    Args:
        bundle: to explain the answers with.
        cache: folder.
        addresses: of a server.
        histories: address of its store.
        data: prepared data set, for test users.
        timeout_s: how long to wait for the server.
        trust: TLS files.
        repository: of the server, which holds its operator's filters; None: it is not known.
    """
    store = None if histories is None else open_histories(histories, 1.0)
    people = None if data is None else partial(HeldOutUsers, data, bundle)
    operator = None if repository is None else NamedFilters.of_repository(repository)
    replay = partial(Replay, bundle, store, operator)
    explorer = Explorer(addresses, Corpus(bundle, cache), replay, people, timeout_s, trust=trust, operator=operator)
    (port,) = free_ports(1)
    app = make_app(explorer, ["127.0.0.1", "localhost"])
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="warning", lifespan="on"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        wait_until(lambda: server.started)
        yield Page(f"http://127.0.0.1:{port}")
    finally:
        server.should_exit = True
        thread.join()


NOWHERE = Addresses("127.0.0.1:1", "127.0.0.1:1", "127.0.0.1:1")
"""Nothing answers there."""
