"""The journal of a model repository in the hands of its one writer, the model `catalog`."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path

from nann.catalog import JournalReader, JournalWriter, compacted
from nann.catalog.journal import journal_path
from nann.catalog.journal_format import Record

from .version_history import contained_sequence

_COMPACT_BYTES = 16 << 20
"""A journal has at least so many bytes when it is compacted, and twice as many as after the last time."""


class CatalogJournal:
    """Opens the journal with the first change, and compacts it.

    Args:
        repository: the model repository.
        warn: gets a line about what a crash left.
    """

    def __init__(self, repository: Path, warn: Callable[[str], None]) -> None:
        self.path = journal_path(repository)
        self._repository = repository
        self._warn = warn
        self._writer: JournalWriter | None = None
        self._compact_at = 0

    @property
    def writer(self) -> JournalWriter:
        """Of the file, which is made.

        Raises:
            JournalError, OSError: if it can't be written.
        """
        if self._writer is None:
            self._writer = JournalWriter(self.path)
            if self._writer.dropped_bytes:
                self._warn(
                    f"{self.path}: cut off {self._writer.dropped_bytes:,} bytes of a change that a crash ended before "
                    "it was acknowledged"
                )
        return self._writer

    def append(self, payload: bytes, after: int) -> int:
        """As `JournalWriter.append`."""
        self._compact_where_due()
        return self.writer.append(payload, after)

    def append_all(self, records: Sequence[Record]) -> None:
        """As `JournalWriter.append_all`."""
        self._compact_where_due()
        self.writer.append_all(records)

    def contained(self) -> int:
        """Up to which number all versions that may answer contain the changes."""
        return contained_sequence(self._repository)

    def bundle_has_changed(self) -> None:
        """Another bundle may contain more: the next change looks whether to compact."""
        self._compact_at = 0

    def close(self) -> None:
        """Leaves the journal to the next writer."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _compact_where_due(self) -> None:
        """Leaves out of the journal what no version that may answer needs."""
        writer = self.writer
        if writer.size_bytes < self._compact_at:
            return
        with contextlib.closing(JournalReader(self.path)) as reader:
            records = reader.new()
        # The last record stays as it is: by its digest servers with a common stream know each other's journals.
        last = records[-1].sequence if records else 0
        kept = compacted(records, min(self.contained(), last - 1))
        if 2 * sum(len(record.payload) for record in kept) <= sum(len(record.payload) for record in records):
            with contextlib.suppress(OSError):  # a full disk: the next time
                writer.replace(kept)
        self._compact_at = max(_COMPACT_BYTES, 2 * writer.size_bytes)
