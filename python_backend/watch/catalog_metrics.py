"""Metrics of a corpus that changes, from those who follow its journal."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from nann.catalog import LiveCorpus

from .publisher import MetricsPublisher

if TYPE_CHECKING:
    from ..catalog_replica import Replica

_KINDS = ("added", "replaced", "deleted", "changed", "unplaced")


class CatalogMetrics:
    """Gauges of what a process knows of the items' changes.

    Args:
        publisher: of the model.
        corpus: returns the corpus; None: there is none yet.
        limit: returns how many items may be added; None: another process knows.
    """

    def __init__(
        self,
        publisher: MetricsPublisher,
        corpus: Callable[[], LiveCorpus | None],
        limit: Callable[[], float] | None = None,
    ) -> None:
        self._corpus = corpus
        publisher.reading("nann_catalog_sequence", "The last change that this model has applied", self._sequence)
        for kind in _KINDS:
            publisher.reading(
                "nann_catalog_items", "Items that differ from the bundle's", self._counted(kind), kind=kind
            )
        publisher.reading(
            "nann_catalog_unknown_attributes",
            "Changed values that fit no attribute of the bundle",
            self._counted("unknown_attributes"),
        )
        publisher.reading(
            "nann_catalog_newest_timestamp_seconds",
            "When the last change came; 0 before the first",
            self._counted("newest_s"),
        )
        if limit is not None:
            publisher.reading("nann_catalog_added_limit_items", "How many items may be added to the bundle", limit)

    def _sequence(self) -> float:
        corpus = self._corpus()
        return 0 if corpus is None else corpus.reader.sequence

    def _counted(self, name: str) -> Callable[[], float]:
        def read() -> float:
            corpus = self._corpus()
            return 0.0 if corpus is None else float(getattr(corpus.counts, name))

        return read


def add_stream_metrics(publisher: MetricsPublisher, replica: Replica) -> None:
    """Adds gauges of how a journal follows the stream that several servers write."""
    publisher.reading(
        "nann_catalog_stream_followed",
        "1 while the journal follows the stream of changes, 0 while it can't",
        lambda: float(not replica.problem),
    )
    publisher.reading(
        "nann_catalog_stream_sequence", "The last change that was seen in the stream", lambda: replica.stream_sequence
    )
    publisher.reading(
        "nann_catalog_stream_read_timestamp_seconds", "When the stream was last read", lambda: replica.read_s
    )
