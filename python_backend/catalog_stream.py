"""A Redis stream that holds the changes of several servers, in the one order that all of them apply.

    id        SEQUENCE-0: the number of the change, the same in every server's journal
    payload   of the record
    previous  number and digest of the record before it

Redis takes an entry only if its id is above the last one's: of two servers that add the next change at the same time
one succeeds. The chain of `previous` shows a server that changes are missing, or that others have other ones.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from nann.catalog.journal_format import Record
from nann.errors import ConfigError, JournalError

from .redis_connection import Redis, RedisResponseError, checked_url, open_redis

_TIMEOUT_S = 2.0
"""Of an answer: a change waits no longer, nor does the heartbeat of the process behind it."""
_URL = re.compile(r"([^/?#]+://[^/?#]*/[0-9]+)/([^?#]+)(\?.*)?")
_FORM = "redis://[USER@]HOST[:PORT]/DATABASE/KEY, or rediss:// for TLS"
_PAGE = 200
"""Entries that are read at a time."""


@dataclass(frozen=True)
class Position:
    """A place in the chain: the number and the digest of a record; digest "": it is not known."""

    sequence: int
    digest: str

    def is_at(self, other: Position) -> bool:
        """Whether both may be the same place."""
        known = self.digest and other.digest
        return self.sequence == other.sequence and (self.digest == other.digest or not known)


@dataclass(frozen=True)
class Entry:
    """A record, and what comes before it."""

    record: Record
    previous: Position

    @property
    def position(self) -> Position:
        """Its own."""
        return Position(self.record.sequence, self.record.digest)


class CatalogStream:
    """One stream. Everything raises `RedisError` where Redis does not do it.

    Args:
        url: as `stream_address` takes it.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        address, self._key = stream_address(url)
        # One connection waits for changes, the other adds some.
        self._redis: Redis = open_redis(address, timeout_s=_TIMEOUT_S)

    def add(self, record: Record, previous: Position) -> bool:
        """Adds a record as the last one; False: there is one with its number or a later one."""
        fields: dict[Any, Any] = {"payload": record.payload, "previous": f"{previous.sequence} {previous.digest}"}
        try:
            self._redis.xadd(self._key, fields, id=f"{record.sequence}-0")
        except RedisResponseError as error:
            if "equal or smaller" not in str(error):
                raise
            return False
        return True

    def after(self, sequence: int, wait_s: float = 0.0) -> list[Entry]:
        """The next entries behind a number, some of them if there are many.

        Args:
            sequence: the number.
            wait_s: how long to wait for one if there is none; at most 1.
        """
        block = round(1000 * wait_s) or None
        found: Any = self._redis.xread({self._key: f"{sequence}-0"}, count=_PAGE, block=block)
        return [_entry(*each) for _, entries in found for each in entries]

    def last(self) -> Position:
        """Where the stream ends, also if its last entries were trimmed; (0, "") where there is none."""
        newest: Any = self._redis.xrevrange(self._key, count=1)
        if newest:
            return _entry(*newest[0]).position
        if not self._redis.exists(self._key):
            return Position(0, "")
        state: Any = self._redis.xinfo_stream(self._key)
        return Position(_number(state["last-generated-id"]), "")

    def close(self) -> None:
        """Closes the connections."""
        self._redis.close()


def stream_address(url: str) -> tuple[str, str]:
    """A stream's URL as `open_redis` takes it, and the stream's key.

    Args:
        url: redis://[USER@]HOST[:PORT]/DATABASE/KEY, or rediss:// with the options that `open_redis` takes.

    Raises:
        ConfigError: if it is none.
    """
    found = _URL.fullmatch(url)
    if found is None:
        raise ConfigError(f"the URL of the stream has no database and key; expected {_FORM}")
    address, key, options = found.groups(default="")
    return checked_url(address + options), key


def _entry(stream_id: bytes, fields: dict[bytes, bytes]) -> Entry:
    try:
        sequence, digest = fields[b"previous"].decode().split(" ")
        return Entry(Record(_number(stream_id), fields[b"payload"]), Position(int(sequence), digest))
    except (KeyError, ValueError) as error:
        raise JournalError(
            f"entry {stream_id.decode()} of the stream was not written by a catalog; use a key of Redis that nothing "
            "else writes to"
        ) from error


def _number(stream_id: bytes) -> int:
    return int(stream_id.partition(b"-")[0])
