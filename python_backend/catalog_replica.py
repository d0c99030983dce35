"""Keeps the journal of one server the same as a stream of changes that several servers write."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence

from nann.catalog import Changes, JournalReader
from nann.catalog.journal_format import Record
from nann.errors import JournalError, ServerError, ServerUnavailable

from .catalog_journal import CatalogJournal
from .catalog_stream import CatalogStream, Entry, Position
from .redis_connection import AuthenticationError, RedisError, RedisResponseError

_WAIT_S = 0.5
"""How long the follower waits in Redis for a change before it looks whether it is to end."""
_PAUSE_S = 0.5
"""Before it tries again after a failure."""
_REFUSALS = (AuthenticationError, RedisResponseError)
_COPY = "stop this server, copy .catalog/journal from the model repository of another one, and start it again"


class Replica:
    """Follows the stream in a thread, and adds this server's changes to it.

    What it adds and reads is in the journal, and all that others follow is the journal. While the two do not agree, or
    Redis is away, changes are refused, and searches go on.

    Args:
        stream: the stream.
        journal: the journal, which may hold changes that the stream does not have yet: they are added.
        check: raises an error of ours for changes that would break this server's searches.
        warn: gets a line about each failure, and about its end.

    Attributes:
        problem: why the journal does not follow the stream now; "": it does.
        stream_sequence: of the last change that was seen in the stream.
        read_s: when Redis answered last, in seconds since 1970.

    Raises:
        JournalError: if the journal can't become the same as the stream.
        ServerError: if Redis refuses the password, or the key holds something else.
    """

    def __init__(
        self,
        stream: CatalogStream,
        journal: CatalogJournal,
        check: Callable[[Changes], None],
        warn: Callable[[str], None],
    ) -> None:
        self._lock = threading.RLock()
        self.problem = ""
        self.stream_sequence = 0
        self.read_s = 0.0
        self._stream, self._journal, self._check, self._warn = stream, journal, check, warn
        self._start = Position(0, "")
        self._closing = threading.Event()
        try:
            self._agree()
        except RedisError as error:
            self._lose(error)
            if isinstance(error, _REFUSALS):
                raise ServerError(self.problem) from error
        self._thread = threading.Thread(target=self._run, name="catalog-stream", daemon=True)
        self._thread.start()

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """Reads what other servers added up to now; within the context the journal changes by `append` alone.

        Raises:
            ServerUnavailable: if the two do not agree, or Redis does not answer.
        """
        with self._lock:
            if self.problem:
                raise ServerUnavailable(f"changes are refused for now: {self.problem}")
            try:
                self._read()
            except RedisError as error:
                self._lose(error)
                raise ServerUnavailable(f"nothing was changed: {self.problem}") from error
            yield

    def append(self, payload: bytes, after: int) -> int | None:
        """Adds a change to the stream, then to the journal, if it was checked against all that is before it.

        Args:
            payload: of the record.
            after: the change gets a larger number.

        Returns:
            Its sequence number. None: another server was first; its change is in the journal, and this one is not.

        Raises:
            ServerUnavailable: if Redis does not answer.
            ServerError: if it is in the stream, and can't be written to the journal.
            JournalError: if the journal can't become the same as the stream.
        """
        at = self._at
        record = Record(max(at.sequence, after) + 1, payload)
        try:
            if not self._stream.add(record, at):
                self._agree()
                return None
        except RedisError as error:
            self._lose(error)
            raise ServerUnavailable(f"the change may be done, or not; send it again: {self.problem}") from error
        try:
            self._write([record])
        except OSError as error:
            raise ServerError(
                f"change {record.sequence} is in the stream, and {self._journal.path} can't be written: "
                f"{error.strerror}; it is done here as soon as it can be"
            ) from error
        return record.sequence

    def close(self) -> None:
        """Ends the thread."""
        self._closing.set()
        self._thread.join()
        self._stream.close()

    def _run(self) -> None:
        while not self._closing.is_set():
            try:
                if self.problem:
                    with self._lock:
                        self._agree()
                        self.problem = ""
                    self._warn(f"the catalog follows {self._stream.url} again")
                entries = self._stream.after(self._at.sequence, _WAIT_S)
                self.read_s = time.time()
                with self._lock:
                    self._apply(entries)
            except RedisError as error:
                self._lose(error)
            except Exception as error:
                self._fail(f"{type(error).__name__}: {error}" if not isinstance(error, JournalError) else str(error))
            if self.problem:
                self._closing.wait(_PAUSE_S)

    def _lose(self, error: RedisError) -> None:
        verb = "refuses" if isinstance(error, _REFUSALS) else "does not answer at"
        self._fail(f"Redis {verb} {self._stream.url}: {error}")

    def _fail(self, problem: str) -> None:
        if problem != self.problem:
            self._warn(f"the catalog does not follow the changes of other servers: {problem}")
        self.problem = problem

    def _agree(self) -> None:
        """Adds to the stream what it lacks of the journal, and reads from it what the journal lacks."""
        while (end := self._stream.last()).sequence <= self._at.sequence and not self._publish(end):
            pass  # another server adds the same changes: what it has added is compared
        self.read_s, self.stream_sequence = time.time(), max(end.sequence, self.stream_sequence)
        self._read()
        if self._at.sequence < end.sequence:  # its entries were all trimmed
            if self._journal.contained() < end.sequence:
                raise _trimmed(self._at.sequence, end.sequence)
            self._start = end

    def _read(self) -> None:
        while entries := self._stream.after(self._at.sequence):
            self._apply(entries)

    @property
    def _at(self) -> Position:
        """Where the journal is in the chain: behind its own end, if the bundles contain what the stream lacks."""
        writer = self._journal.writer
        own = Position(writer.sequence, writer.digest)
        return own if own.sequence >= self._start.sequence else self._start

    def _publish(self, end: Position) -> bool:
        """Adds what the journal has behind the stream's end, a place in the journal; False: not all, the end moved."""
        with contextlib.closing(JournalReader(self._journal.path)) as reader:
            records = reader.new()
        contained = self._journal.contained()
        if not end.sequence:  # a stream that begins now leaves out what the bundles contain
            self._start = Position(contained, "")
        at = end if end.sequence else self._start
        places = [Position(record.sequence, record.digest) for record in records]
        known = (self._at, *places)
        if end.sequence > contained and not any(place.is_at(end) for place in known):
            raise _other_history(end.sequence)
        for record, place in zip(records, places, strict=True):
            if record.sequence > at.sequence:
                if not self._stream.add(record, at):
                    return False
                at = place
        self.stream_sequence = at.sequence
        return True

    def _apply(self, entries: Sequence[Entry]) -> None:
        """Writes entries to the journal up to the first that does not follow."""
        at, failure, found = self._at, None, []
        for entry in entries:
            self.stream_sequence = max(self.stream_sequence, entry.record.sequence)
            if entry.record.sequence > at.sequence:
                if (failure := self._failure(entry, at)) is not None:
                    break
                found.append(entry.record)
                at = entry.position
        if found:
            self._write(found)
        if failure is not None:
            raise failure

    def _write(self, records: Sequence[Record]) -> None:
        self._journal.append_all(records)
        self.stream_sequence = max(self.stream_sequence, records[-1].sequence)

    def _failure(self, entry: Entry, at: Position) -> Exception | None:
        """Why an entry can't be written behind this place; None: it can."""
        previous = entry.previous
        if not previous.is_at(at):
            if previous.sequence <= at.sequence:
                return _other_history(at.sequence)
            if previous.sequence > self._journal.contained():
                return _trimmed(at.sequence, previous.sequence)
        try:
            self._check(Changes.unpack(entry.record.payload))
        except Exception as error:
            return JournalError(f"change {entry.record.sequence} of the stream can't be applied here: {error}")
        return None


def _trimmed(have: int, begin: int) -> JournalError:
    return JournalError(
        f"the journal ends with change {have:,}, and the stream no longer has those up to {begin:,}; {_COPY}, or serve "
        "a bundle that contains them"
    )


def _other_history(sequence: int) -> JournalError:
    return JournalError(
        f"change {sequence:,} of the stream is not that of the journal: each was written without the other; {_COPY}"
    )
