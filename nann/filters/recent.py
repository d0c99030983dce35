"""What was used last, as much of it as a bound allows."""

from __future__ import annotations

from collections import OrderedDict
from threading import Lock
from typing import Generic, TypeVar

Value = TypeVar("Value")


class Recent(Generic[Value]):
    """Values by text, up to so many bytes; the value that was not used for longest goes first. Safe among threads."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self._bytes = 0
        self._values: OrderedDict[str, tuple[Value, int]] = OrderedDict()
        self._lock = Lock()

    def get(self, key: str) -> Value | None:
        """The value, which now counts as used, or None."""
        with self._lock:
            found = self._values.get(key)
            if found is None:
                return None
            self._values.move_to_end(key)
            return found[0]

    def put(self, key: str, value: Value, size_bytes: int) -> None:
        """Keeps a value of this size."""
        with self._lock:
            _, replaced = self._values.pop(key, (None, 0))
            self._values[key] = value, size_bytes
            self._bytes += size_bytes - replaced
            while self._bytes > self._limit:
                _, (_, size) = self._values.popitem(last=False)
                self._bytes -= size
