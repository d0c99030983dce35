"""A store of histories that never fails a request: what fails, or failed just now, is answered without."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from nann.histories import Histories, UserHistory

FAILURES = 3
"""So many reads in a row must fail until the store is not asked any more."""
RETRY_S = 1.0
"""How often it is tried then, beside the requests."""
_NOBODY = (b"nann-probe",)


class GuardedHistories:
    """A store behind a circuit breaker.

    While the breaker is open, a read costs nothing: a thread asks the store again and again, and closes the breaker
    when it answers. So requests never wait for a store that is down, and no restart is needed when it is back.

    Args:
        open_store: opens it; may fail, and is then tried again.
        say: gets a line when the breaker opens or closes.
        count: called after each read with how it ended, "read", "failed" or "skipped", and the seconds that it took.
        failures: reads in a row that must fail to open the breaker.
        retry_s: seconds between the tries while it is open.
    """

    def __init__(
        self,
        open_store: Callable[[], Histories],
        say: Callable[[str], None],
        count: Callable[[str, float], None] = lambda how, seconds: None,
        *,
        failures: int = FAILURES,
        retry_s: float = RETRY_S,
    ) -> None:
        self._open_store, self._say, self._count = open_store, say, count
        self._failures, self._retry_s = failures, retry_s
        self._store: Histories | None = None
        self._failed = 0
        self._closing = threading.Event()
        self._prober: threading.Thread | None = None
        try:
            self._ask(_NOBODY)  # connected, before the first request waits for it
        except Exception as error:
            self._open_breaker(error)

    @property
    def is_open(self) -> bool:
        """Whether the store is not asked, since it failed."""
        return self._prober is not None

    def read(self, user_ids: Sequence[bytes]) -> list[UserHistory | None] | None:
        """What the store has of each user, None for one that it does not know; None: it could not be asked."""
        if self.is_open:
            self._count("skipped", 0.0)
            return None
        start = time.perf_counter()
        try:
            found = self._ask(user_ids)
        except Exception as error:  # whatever a store may raise: requests go on
            self._count("failed", time.perf_counter() - start)
            self._failed += 1
            if self._failed >= self._failures:
                self._open_breaker(error)
            return None
        self._failed = 0
        self._count("read", time.perf_counter() - start)
        return found

    def close(self) -> None:
        """Ends the thread and the connection."""
        self._closing.set()
        if (prober := self._prober) is not None:
            prober.join()
        if self._store is not None:
            self._store.close()

    def _ask(self, user_ids: Sequence[bytes]) -> list[UserHistory | None]:
        if self._store is None:
            self._store = self._open_store()
        return self._store.read(user_ids)

    def _open_breaker(self, error: Exception) -> None:
        self._say(f"the store of histories fails, and requests are answered without stored histories: {error}")
        self._prober = threading.Thread(target=self._probe, name="histories", daemon=True)
        self._prober.start()

    def _probe(self) -> None:
        while not self._closing.wait(self._retry_s):
            try:
                self._ask(_NOBODY)
            except Exception:  # noqa: S112 - it is still down, and was reported
                continue
            self._failed = 0
            self._say("the store of histories answers again")
            self._prober = None
            return
