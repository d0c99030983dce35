"""Metrics of the store of histories."""

from __future__ import annotations

from collections.abc import Callable

from .publisher import MetricsPublisher

_BUCKETS_S = (0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1)


class HistoryMetrics:
    """Reads by how they ended, and how long they took; users that were found; whether the store is asked at all.

    Args:
        publisher: of the model.
        is_open: whether the circuit breaker is open.
    """

    def __init__(self, publisher: MetricsPublisher, is_open: Callable[[], bool]) -> None:
        self._seconds = publisher.histogram(
            "nann_history_read_seconds", "One read of the store of histories", _BUCKETS_S
        )
        self._users = {
            found: publisher.counter(
                "nann_history_users_total", "Users asked for, by whether they are known", found=found
            )
            for found in ("yes", "no", "unread")
        }
        self._reads = {
            how: publisher.counter("nann_history_reads_total", "Reads of the store of histories", outcome=how)
            for how in ("read", "failed", "skipped")
        }
        publisher.reading(
            "nann_history_breaker_open", "1 while the store of histories is not asked, since it failed", is_open
        )

    def read(self, how: str, seconds: float) -> None:
        """Counts one read: "read", "failed" or "skipped"."""
        self._reads[how].add(1)
        if how != "skipped":
            self._seconds.observe(seconds)

    def users(self, known: int, unknown: int, unread: int) -> None:
        """Counts the users of a request."""
        for counter, count in zip(self._users.values(), (known, unknown, unread), strict=True):
            counter.add(count)
