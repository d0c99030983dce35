"""The journal of a model repository: every change of its items, in order, safe on disk before it is acknowledged.

One process writes, any number follow. A batch of changes is one record: it is there as a whole or not at all. What a
crash left of a record at the end of the file is not there. Anything else that is not whole is damage, and an error:
changes after it can't be left out in silence.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from nann.durable_files import new_file
from nann.errors import JournalError

from .journal_format import HEADER_BYTES, MAX_PAYLOAD_BYTES, RESTORE, Header, Record

FOLDER, FILE = ".catalog", "journal"
"""In a model repository. Triton does not look into it."""
_PATIENCE_S = 5.0
"""How long the next writer waits for a killed one's process to end."""
_POLL_S = 0.05


def journal_path(repository: Path) -> Path:
    """Where the journal of a model repository is; the file is made with the first change."""
    return repository / FOLDER / FILE


class JournalReader:
    """Follows a journal from its beginning, also into the file that a compaction puts in its place.

    Attributes:
        path: the file, which need not exist yet.
        sequence: of the last record that was read; 0 before the first.
        size_bytes: of the file when it was read last.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.sequence = 0
        self.size_bytes = 0
        self._name = str(path)
        self._descriptor = -1
        self._header = Header(0, 0)
        self._offset = self._sequence_before = 0
        self._seen = (-1, -1)

    def new(self) -> Sequence[Record]:
        """The records since the last call; one look at the file's size where there are none.

        Raises:
            JournalError: if the file is damaged.
        """
        try:
            state = os.stat(self._name)
        except FileNotFoundError:
            return ()
        if (state.st_ino, state.st_size) == self._seen:
            return ()
        if state.st_ino != self._seen[0]:
            state = self._open()
        if state.st_size < self._offset:
            raise JournalError(
                f"{self.path} ends at byte {state.st_size:,} and had {self._offset:,} bytes of changes; {RESTORE}"
            )
        data = os.pread(self._descriptor, state.st_size - self._offset, self._offset)
        parsed = self._header.parse(data, self._sequence_before)
        if parsed.is_damaged:
            raise JournalError(f"{self.path} is damaged at byte {self._offset + parsed.end:,}; {RESTORE}")
        self._offset += parsed.end
        self._seen, self.size_bytes = (state.st_ino, state.st_size), state.st_size
        if parsed.records:
            self._sequence_before = parsed.records[-1].sequence
        found = [record for record in parsed.records if record.sequence > self.sequence]  # a new file repeats some
        self.sequence = max(self.sequence, self._sequence_before, self._header.sequence)
        return found

    @property
    def end(self) -> int:
        """Where the last whole record ends, in bytes."""
        return self._offset

    @property
    def header(self) -> Header:
        """Of the file that was read last."""
        return self._header

    def close(self) -> None:
        """Closes the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __del__(self) -> None:
        self.close()

    def _open(self) -> os.stat_result:
        self.close()
        self._descriptor = os.open(self._name, os.O_RDONLY)
        self._header = Header.unpack(self.path, os.pread(self._descriptor, HEADER_BYTES, 0))
        self._offset, self._sequence_before = HEADER_BYTES, 0
        return os.fstat(self._descriptor)


class JournalWriter:
    """Appends to a journal. What `append` has returned for is on disk.

    Args:
        path: the file; it and its folder are made.

    Attributes:
        dropped_bytes: what a crash had left at the end, which is cut off.
        digest: of the last record; "" before the first, or where a compaction dropped it.

    Raises:
        JournalError: if another process writes, or the file is damaged.
        OSError: if it can't be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = _locked(path.with_name(f".{path.name}.lock"))
        self._descriptor, self._sequence, self._end = -1, 0, 0
        try:
            if not path.exists():
                self._write_new((), 0)
            self._open()
        except BaseException:
            self.close()
            raise

    @property
    def sequence(self) -> int:
        """Of the last record that was ever written; 0 before the first."""
        return self._sequence

    @property
    def size_bytes(self) -> int:
        """Of the file."""
        return self._end

    def append(self, payload: bytes, after: int = 0) -> int:
        """Adds a record and returns its sequence number, which is above `after`.

        Raises:
            OSError: if it can't be written; nothing was added.
            JournalError: if the disk does not say that it has it, now or before.
        """
        sequence = max(self._sequence, after) + 1
        self.append_all([Record(sequence, payload)])
        return sequence

    def append_all(self, records: Sequence[Record]) -> None:
        """Adds one or more records with the numbers that they have, which rise from above the last one's.

        Raises:
            OSError, JournalError: as `append`. A crash may leave the first of them.
        """
        for record in records:
            if len(record.payload) > MAX_PAYLOAD_BYTES:
                raise JournalError(
                    f"the changes have {len(record.payload):,} bytes; expected at most {MAX_PAYLOAD_BYTES:,}; send "
                    "fewer items"
                )
        if self._descriptor < 0:
            raise JournalError(f"{self.path} is closed after a failure; start the server again")
        data = b"".join(self._header.record(record.sequence, record.payload) for record in records)
        try:
            written = 0
            while written < len(data):
                written += os.pwrite(self._descriptor, data[written:], self._end + written)
        except OSError:
            os.ftruncate(self._descriptor, self._end)
            raise
        try:
            os.fdatasync(self._descriptor)
        except OSError as error:  # a later sync could succeed without the pages that failed
            self.close()
            raise JournalError(
                f"{self.path} can't be synced: {error.strerror}; it is not known whether the change is kept: start the "
                "server again on a sound disk, and send the change again"
            ) from error
        self._end += len(data)
        self._sequence, self.digest = records[-1].sequence, records[-1].digest

    def replace(self, records: Iterable[Record]) -> None:
        """Puts these records, with their sequence numbers, in place of all; those who follow the journal go on.

        Raises:
            OSError: if the new file can't be written; the old one stays.
        """
        self._write_new(records, self._sequence)
        self._open()

    def close(self) -> None:
        """Closes the file, for the next writer."""
        for descriptor in (self._descriptor, self._lock):
            if descriptor >= 0:
                os.close(descriptor)
        self._descriptor = self._lock = -1

    def _write_new(self, records: Iterable[Record], sequence: int) -> None:
        header = Header.new(sequence)
        with new_file(self.path) as temporary, temporary.open("wb") as stream:
            stream.write(header.pack())
            for record in records:
                stream.write(header.record(record.sequence, record.payload))

    def _open(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
        with contextlib.closing(JournalReader(self.path)) as reader:
            records = reader.new()
            self._header, self._end, self._sequence = reader.header, reader.end, reader.sequence
        self.digest = records[-1].digest if records and records[-1].sequence == self._sequence else ""
        self._descriptor = os.open(self.path, os.O_RDWR)
        self.dropped_bytes = os.fstat(self._descriptor).st_size - self._end
        if self.dropped_bytes:
            os.ftruncate(self._descriptor, self._end)
            os.fsync(self._descriptor)


def _locked(path: Path) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    deadline = time.monotonic() + _PATIENCE_S
    while not _is_locked(descriptor):
        if time.monotonic() > deadline:
            os.close(descriptor)
            raise JournalError(f"another process has {path} and writes the journal; stop the other server")
        time.sleep(_POLL_S)
    return descriptor


def _is_locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
