"""Adds, changes and deletes items of a model repository: checks a batch, and writes it to the journal."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nann.catalog import Changes, JournalReader, JournalWriter, LiveCorpus, compacted
from nann.catalog.changes import Id, Upsert
from nann.catalog.checks import checked_ids, checked_upserts
from nann.catalog.journal import journal_path
from nann.errors import ServerError
from nann.kernels import Float32Array
from nann.signature import PADDING_ITEM

from .engines.item_encoder import item_encoder
from .history import CurrentBundle, contained_sequence

_ALWAYS = 1_000
"""So many items may be added or changed, however small the corpus."""
_COMPACT_BYTES = 16 << 20
"""A journal has at least so many bytes when it is compacted, and twice as many as after the last time."""


class CatalogItems:
    """The one writer of the items' changes in a model repository.

    Args:
        repository: the model repository.
        added_share: how many items may be added, as a share of the bundle's.
        changed_share: how many of the bundle's may have other attributes.
        warn: gets a line about what a crash left.
    """

    def __init__(self, repository: Path, added_share: float, changed_share: float, warn: Callable[[str], None]) -> None:
        self._repository = repository
        self._path = journal_path(repository)
        self._shares = added_share, changed_share
        self._warn = warn
        self._current = CurrentBundle(repository)
        self._corpus: LiveCorpus | None = None
        self._writer: JournalWriter | None = None
        self._compact_at = 0
        self.follow()

    def upsert(
        self,
        typed: Sequence[str],
        attributes: npt.NDArray[np.object_] | None,
        rows: Float32Array | None,
        light: Float32Array | None,
        vectors: Float32Array | None,
    ) -> dict[str, Any]:
        """Adds or changes items: `nann.catalog.checks.checked_upserts` has the arguments.

        Returns:
            `sequence` of the change; how many items are `new`, and how many were there before (`replaced`).

        Raises:
            RequestError: if something is wrong with one of them; nothing is changed.
            ServerError: if there is no bundle, or no room for more items.
            JournalError, OSError: if it can't be written.
        """
        corpus = self._followed()
        known = checked_ids(typed, corpus.bundle.id_kind)
        upserts = checked_upserts(corpus, known, attributes, rows, light, vectors)
        self._require_room(corpus, upserts)
        there = int(np.count_nonzero(corpus.index_of(known) != PADDING_ITEM))
        model = "" if rows is None else corpus.model
        sequence = self._append(Changes(time.time(), upserts, (), model))
        return {"sequence": sequence, "new": len(known) - there, "replaced": there}

    def delete(self, typed: Sequence[str]) -> dict[str, Any]:
        """Deletes items.

        Returns:
            `sequence` of the last change; how many items are `removed`, and how many there were not (`unknown`).

        Raises:
            RequestError, ServerError, JournalError, OSError: as for `upsert`.
        """
        corpus = self._followed()
        known = checked_ids(typed, corpus.bundle.id_kind)
        found = corpus.index_of(known) != PADDING_ITEM
        there: list[Id] = [each for each, at in zip(known, found, strict=True) if at or corpus.is_unplaced(each)]
        sequence = self._append(Changes(time.time(), (), there)) if there else corpus.reader.sequence
        return {"sequence": sequence, "removed": len(there), "unknown": len(known) - len(there)}

    def status(self) -> dict[str, Any]:
        """What there is, and how much more may be."""
        corpus = self._followed()
        counts, (most_added, most_changed) = corpus.counts, self.limits
        newest = datetime.fromtimestamp(counts.newest_s, timezone.utc).isoformat() if counts.newest_s else None
        return {
            "sequence": corpus.reader.sequence,
            "contained_sequence": corpus.contained,
            "newest": newest,
            "items": corpus.item_count,
            "of_bundle": corpus.bundle.item_count,
            "added": counts.added,
            "most_added": most_added,
            "replaced": counts.replaced,
            "deleted": counts.deleted,
            "changed": counts.changed,
            "most_changed": most_changed,
            "unplaced": counts.unplaced,
            "unknown_attributes": counts.unknown_attributes,
            "journal_bytes": corpus.reader.size_bytes,
            "attributes": {}
            if (catalogue := corpus.bundle.attributes) is None
            else {name: column.type for name, column in catalogue.columns.items()},
            "item_row_width": corpus.row_width,
            "light_width": corpus.light_width,
            "vector_width": corpus.vector_width,
        }

    def close(self) -> None:
        """Leaves the journal to the next writer."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    @property
    def limits(self) -> tuple[int, int]:
        """How many items may be added, and how many changed."""
        count = 0 if self._corpus is None else self._corpus.bundle.item_count
        added, changed = (max(_ALWAYS, round(share * count)) for share in self._shares)
        return added, changed

    @property
    def corpus(self) -> LiveCorpus | None:
        """The items of the bundle that answers, as they were at the last look; None before the first installation."""
        return self._corpus

    def follow(self) -> LiveCorpus | None:
        """Looks at the bundle that answers and at the journal; returns `corpus`."""
        bundle = self._current.get()
        if bundle is not None and (self._corpus is None or self._corpus.bundle is not bundle):
            self._corpus, self._compact_at = LiveCorpus(bundle, self._path, item_encoder(bundle)), 0
        if self._corpus is not None:
            self._corpus.refresh()
        return self._corpus

    def _followed(self) -> LiveCorpus:
        corpus = self.follow()
        if corpus is None:
            raise ServerError(f"{self._repository} has no bundle whose items could change; deploy one first")
        return corpus

    def _require_room(self, corpus: LiveCorpus, upserts: Sequence[Upsert]) -> None:
        counts, limits, (added, changed) = corpus.counts, self.limits, corpus.growth(upserts)
        for what, now, new, most, setting in (
            ("added", counts.added, added, limits[0], "max_added_share"),
            ("changed", counts.changed, changed, limits[1], "max_changed_share"),
        ):
            if new and now + new > most:
                raise ServerError(
                    f"{now:,} items are {what} and {new:,} more came; expected at most {most:,}: deploy a bundle that "
                    f"contains them (`nann refresh`), or raise {setting} in config.pbtxt of catalog"
                )

    def _append(self, changes: Changes) -> int:
        if self._writer is None:
            self._writer = JournalWriter(self._path)
            if self._writer.dropped_bytes:
                self._warn(
                    f"{self._path}: cut off {self._writer.dropped_bytes:,} bytes of a change that a crash ended before "
                    "it was acknowledged"
                )
        if self._writer.size_bytes >= self._compact_at:
            self._compact(self._writer)
        # Of a bundle that was made for another journal, this one's numbers may be below what it contains.
        sequence = self._writer.append(changes.pack(), after=self._followed().contained)
        self._followed()
        return sequence

    def _compact(self, writer: JournalWriter) -> None:
        """Leaves out of the journal what no version that may answer needs."""
        with contextlib.closing(JournalReader(self._path)) as reader:
            records = reader.new()
        kept = compacted(records, contained_sequence(self._repository))
        if 2 * sum(len(record.payload) for record in kept) <= sum(len(record.payload) for record in records):
            with contextlib.suppress(OSError):  # a full disk: the next time
                writer.replace(kept)
        self._compact_at = max(_COMPACT_BYTES, 2 * writer.size_bytes)
