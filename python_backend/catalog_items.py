"""Adds, changes and deletes items of a model repository: checks a batch, and writes it to the journal."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from nann.catalog import Changes, LiveCorpus
from nann.catalog.changes import Id, Upsert
from nann.catalog.checks import check_kind, checked_ids, checked_upserts
from nann.errors import ServerError
from nann.kernels import Float32Array
from nann.signature import PADDING_ITEM

from .catalog_journal import CatalogJournal
from .current_corpus import CurrentCorpus

if TYPE_CHECKING:
    from .catalog_replica import Replica

_ALWAYS = 1_000
"""So many items may be added or changed, however small the corpus."""


class CatalogItems:
    """The one writer of the items' changes in a model repository.

    Args:
        repository: the model repository.
        added_share: how many items may be added, as a share of the bundle's.
        changed_share: how many of the bundle's may have other attributes.
        warn: gets a line about what a crash left, and about a stream that can't be followed.
        stream: URL of the Redis stream that holds the changes of several servers; "": this server is alone.

    Attributes:
        replica: follows the stream; None without one.
    """

    def __init__(
        self,
        repository: Path,
        added_share: float,
        changed_share: float,
        warn: Callable[[str], None],
        stream: str = "",
    ) -> None:
        self._repository = repository
        self._shares = added_share, changed_share
        self._current = CurrentCorpus(repository)
        self._journal = CatalogJournal(repository, warn)
        self.follow()
        self.replica = self._followed_stream(stream, warn) if stream else None

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
            ServerUnavailable: if the stream can't be written.
            JournalError, OSError: if the journal can't be written.
        """

        def checked(corpus: LiveCorpus) -> tuple[Changes, dict[str, Any]]:
            known = checked_ids(typed, corpus.bundle.id_kind)
            upserts = checked_upserts(corpus, known, attributes, rows, light, vectors)
            self._require_room(corpus, upserts)
            there = int(np.count_nonzero(corpus.index_of(known) != PADDING_ITEM))
            model = "" if rows is None else corpus.model
            return Changes(time.time(), upserts, (), model), {"new": len(known) - there, "replaced": there}

        return self._done(checked)

    def delete(self, typed: Sequence[str]) -> dict[str, Any]:
        """Deletes items.

        Returns:
            `sequence` of the last change; how many items are `removed`, and how many there were not (`unknown`).

        Raises:
            RequestError, ServerError, ServerUnavailable, JournalError, OSError: as for `upsert`.
        """

        def checked(corpus: LiveCorpus) -> tuple[Changes, dict[str, Any]]:
            known = checked_ids(typed, corpus.bundle.id_kind)
            found = corpus.index_of(known) != PADDING_ITEM
            there: list[Id] = [each for each, at in zip(known, found, strict=True) if at or corpus.is_unplaced(each)]
            return Changes(time.time(), (), there), {"removed": len(there), "unknown": len(known) - len(there)}

        return self._done(checked)

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
            "stream": None if self.replica is None else self.replica.problem or "followed",
            "attributes": {}
            if (catalogue := corpus.bundle.attributes) is None
            else {name: column.type for name, column in catalogue.columns.items()},
            "item_row_width": corpus.row_width,
            "light_width": corpus.light_width,
            "vector_width": corpus.vector_width,
        }

    def close(self) -> None:
        """Leaves the journal to the next writer."""
        if self.replica is not None:
            self.replica.close()
        self._journal.close()

    @property
    def limits(self) -> tuple[int, int]:
        """How many items may be added, and how many changed."""
        count = 0 if self.corpus is None else self.corpus.bundle.item_count
        added, changed = (max(_ALWAYS, round(share * count)) for share in self._shares)
        return added, changed

    @property
    def corpus(self) -> LiveCorpus | None:
        """The items of the bundle that answers, as they were at the last look; None before the first installation."""
        return self._current.corpus

    def follow(self) -> LiveCorpus | None:
        """Looks at the bundle that answers and at the journal; returns `corpus`."""
        before = self._current.corpus
        if (corpus := self._current.get()) is not before:
            self._journal.bundle_has_changed()
        return corpus

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

    def _done(self, checked: Callable[[LiveCorpus], tuple[Changes, dict[str, Any]]]) -> dict[str, Any]:
        """Checks a batch and writes it, again if another server wrote one in between; returns what to answer."""
        append = self._journal.append if self.replica is None else self.replica.append
        with contextlib.nullcontext() if self.replica is None else self.replica.reading():
            while True:
                corpus = self._followed()
                changes, answer = checked(corpus)
                sequence: int | None = corpus.reader.sequence
                if changes.upserted or changes.deleted:
                    # Of a bundle that was made for another journal, this one's numbers may be below what it contains.
                    sequence = append(changes.pack(), after=corpus.contained)
                if sequence is not None:
                    self._followed()
                    return {"sequence": sequence, **answer}

    def _followed_stream(self, url: str, warn: Callable[[str], None]) -> Replica:
        from .catalog_replica import Replica
        from .catalog_stream import CatalogStream

        try:
            return Replica(CatalogStream(url), self._journal, self._check_foreign, warn)
        except BaseException:
            self._journal.close()
            raise

    def _check_foreign(self, changes: Changes) -> None:
        """Refuses changes of another server that searches here could not read."""
        if self.corpus is not None:
            check_kind(changes, self.corpus.bundle.id_kind)
