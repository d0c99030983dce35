"""The bytes of a journal: a header, then records with a sequence number, a length and checksums.

    header   "NANNJRNL", uint32 format version, uint64 salt, uint64 sequence, uint32 CRC of these
    record   "NREC", uint32 length, uint64 sequence, uint32 CRC of the payload, uint32 CRC of these; the payload

All numbers are little-endian. The header's sequence is that of the last change when the file was made; each record's is
larger than the one before. The salt, a number of the file's own, is part of the records' CRCs, so that no bytes of
another file, and none that a client sent, pass for a record.
"""

from __future__ import annotations

import hashlib
import secrets
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

from nann.errors import JournalError

FORMAT_VERSION = 1
MAX_PAYLOAD_BYTES = 1 << 30
"""The longest payload of a record."""

_MAGIC, _MARK = b"NANNJRNL", b"NREC"
_HEAD, _RECORD, _CRC = struct.Struct("<8sIQQ"), struct.Struct("<4sIQI"), struct.Struct("<I")
HEADER_BYTES = _HEAD.size + _CRC.size
RECORD_BYTES = _RECORD.size + _CRC.size


@dataclass(frozen=True)
class Header:
    """The beginning of a journal: `salt`, and the `sequence` of the last change when the file was made."""

    salt: int
    sequence: int

    @classmethod
    def new(cls, sequence: int) -> Header:
        """One for a new file."""
        return cls(secrets.randbits(64), sequence)

    def pack(self) -> bytes:
        """Its bytes."""
        head = _HEAD.pack(_MAGIC, FORMAT_VERSION, self.salt, self.sequence)
        return head + _CRC.pack(zlib.crc32(head))

    @classmethod
    def unpack(cls, path: Path, data: bytes) -> Header:
        """Reads the first `HEADER_BYTES` of a file.

        Raises:
            JournalError: if they are no header of this version.
        """
        if len(data) < HEADER_BYTES or data[: len(_MAGIC)] != _MAGIC or _crc_of(data, _HEAD.size) is None:
            raise JournalError(f"{path} is damaged at byte 0: it has no header of a journal; {RESTORE}")
        _, version, salt, sequence = _HEAD.unpack_from(data)
        if version != FORMAT_VERSION:
            raise JournalError(f"{path} has format version {version}; this release reads version {FORMAT_VERSION}")
        return cls(salt, sequence)

    def record(self, sequence: int, payload: bytes) -> bytes:
        """The bytes of a record of this file."""
        head = _RECORD.pack(_MARK, len(payload), sequence, zlib.crc32(payload, self._seed))
        return head + _CRC.pack(zlib.crc32(head, self._seed)) + payload

    @property
    def _seed(self) -> int:
        return zlib.crc32(self.salt.to_bytes(8, "little"))

    def parse(self, data: bytes, after: int) -> Parsed:
        """Reads records whose sequence numbers rise from above `after`, up to the first that is not whole."""
        records, at, view = [], 0, memoryview(data)
        while (head := self._head(view, at)) is not None and head[1] > after:
            length, after, payload_crc = head
            payload = view[at + RECORD_BYTES : at + RECORD_BYTES + length]
            if len(payload) < length or zlib.crc32(payload, self._seed) != payload_crc:
                break
            records.append(Record(after, bytes(payload)))
            at += RECORD_BYTES + length
        return Parsed(records, at, self._has_record(data, at + 1))

    def _head(self, data: memoryview, at: int) -> tuple[int, int, int] | None:
        """Length, sequence and payload CRC of the record that begins here, or None."""
        end = at + _RECORD.size
        if bytes(data[at : at + len(_MARK)]) != _MARK or _crc_of(data[at:], _RECORD.size, self._seed) is None:
            return None
        _, length, sequence, payload_crc = _RECORD.unpack(data[at:end])
        return length, sequence, payload_crc

    def _has_record(self, data: bytes, start: int) -> bool:
        """Whether a record begins at `start` or later."""
        view, at = memoryview(data), data.find(_MARK, start)
        while at >= 0:
            if self._head(view, at) is not None:
                return True
            at = data.find(_MARK, at + 1)
        return False


@dataclass(frozen=True)
class Record:
    """One record: its number, and what it holds."""

    sequence: int
    payload: bytes

    @property
    def digest(self) -> str:
        """Tells its payload from that of every other change: a payload says when it was made, and by what."""
        return hashlib.sha256(self.payload).hexdigest()[:16]


@dataclass(frozen=True)
class Parsed:
    """Whole `records` up to byte `end`, and whether there is another one behind what follows: `is_damaged`."""

    records: list[Record]
    end: int
    is_damaged: bool


RESTORE = "restore it from a backup, or remove it: then the changes in it are lost"


def _crc_of(data: bytes | memoryview, size: int, seed: int = 0) -> int | None:
    """The CRC that follows `size` bytes if it is theirs, else None."""
    if len(data) < size + _CRC.size:
        return None
    (crc,) = _CRC.unpack_from(data, size)
    return int(crc) if crc == zlib.crc32(data[:size], seed) else None
