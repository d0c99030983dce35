"""Which server a request goes to, whether it is sent again, and after which wait: decisions alone, no input or output.

A request is sent again where no server answered it (`ServerUnavailable`), which changes nothing: every request is only
a question. It goes to each address in turn at once, and then, after waits that double with jitter, to each again, as
long as its timeout lasts. An overloaded server has said no and is not asked again, but another address is.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Sequence
from urllib.parse import urlsplit

from nann.errors import ConfigError, ServerError, ServerOverloaded

FIRST_WAIT_S, LONGEST_WAIT_S = 0.05, 1.0
"""Of a request before it goes to every address again; of an address that did not answer before it is tried again."""


def parse_addresses(url: str | Sequence[str]) -> list[str]:
    """The addresses of `"host1:8001,host2:8001"`, or of a list.

    Raises:
        ConfigError: if one of them is not `host:port`, or there is none.
    """
    addresses = [part.strip() for part in url.split(",")] if isinstance(url, str) else list(url)
    for address in addresses or [""]:
        if not isinstance(address, str) or "://" in address or not _is_address(address):
            raise ConfigError(
                f"url is {address!r}; expected host:port without a scheme, such as 127.0.0.1:8001; several with commas"
            )
    return addresses


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(f"//{url}")
        return parts.hostname is not None and parts.port != 0  # reading `port` raises if it is none
    except ValueError:
        return False


class Addresses:
    """The servers of one client by place, in turn, and which of them do not answer. Threads may share it.

    Args:
        count: how many there are.
        clock: seconds, monotonic.
        chance: random numbers in [0, 1).
    """

    def __init__(
        self,
        count: int,
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.count, self.clock = count, clock
        self._chance = chance
        self._lock = threading.Lock()
        self._turn = -1
        self._missed = [0] * count
        self._away_until = [0.0] * count

    def choose(self, tried: set[int]) -> int:
        """The next place that is not in `tried`, one that answers if there is any."""
        if self.count == 1:
            return 0
        with self._lock:
            now = self.clock()
            left = [place for place in range(self.count) if place not in tried]
            usable = [place for place in left if not self._missed[place] or self._away_until[place] <= now] or left
            self._turn += 1
            place = usable[self._turn % len(usable)]
            if self._missed[place]:  # one request tries it; meanwhile the others go elsewhere
                self._away_until[place] = now + self.wait_s(self._missed[place])
            return place

    def missed(self, place: int) -> None:
        """Notes that a server did not answer."""
        with self._lock:
            self._missed[place] += 1
            self._away_until[place] = self.clock() + self.wait_s(self._missed[place])

    def answered(self, place: int) -> None:
        """Notes that a server answered."""
        if self._missed[place]:
            with self._lock:
                self._missed[place] = 0

    def wait_s(self, times: int) -> float:
        """How long to wait after so many failures: it doubles up to a limit; half of it is chance."""
        return min(LONGEST_WAIT_S, FIRST_WAIT_S * 2.0 ** min(times, 10)) * (1 + self._chance()) / 2


class Attempts:
    """The attempts of one request.

    Args:
        addresses: where it may go.
        timeout_s: for all attempts together.
        retry: False: each address is asked once.
    """

    def __init__(self, addresses: Addresses, timeout_s: float, *, retry: bool) -> None:
        self._addresses, self._retry = addresses, retry
        self._left_s = timeout_s
        self._ends = addresses.clock() + timeout_s
        self._tried: set[int] = set()
        self._refused: set[int] = set()
        self._rounds = 0
        self._place = 0

    def start(self) -> tuple[int, float]:
        """The place that the next attempt goes to, and how many seconds it may take."""
        self._place = self._addresses.choose(self._tried)
        return self._place, self._left_s

    def answered(self) -> None:
        """The server answered, be it with an error of the request."""
        self._addresses.answered(self._place)

    def failed(self, error: ServerError) -> float:
        """Seconds to wait before the next attempt.

        Raises:
            ServerError: `error`, if there is no further attempt.
        """
        if isinstance(error, ServerOverloaded):
            self._refused.add(self._place)
            self.answered()
        else:
            self._addresses.missed(self._place)
        self._tried.add(self._place)
        wait_s = 0.0
        if len(self._tried) == self._addresses.count:
            self._tried = set(self._refused)
            if not self._retry or len(self._tried) == self._addresses.count:
                raise error
            wait_s = self._addresses.wait_s(self._rounds)
            self._rounds += 1
        self._left_s = self._ends - self._addresses.clock() - wait_s
        if self._left_s <= 0:
            raise error
        return wait_s
