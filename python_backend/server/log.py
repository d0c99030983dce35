"""Passes on the server's log, and keeps its last lines to explain a failure."""

from __future__ import annotations

import contextlib
import re
import threading
from collections import deque
from collections.abc import Iterable
from typing import TextIO

_KEPT_LINES = 2000
_SHOWN_LINES = 12
# "E1122 12:30:00.123456 4242 model_lifecycle.cc:642] message"
_ERROR_LINE = re.compile(r'^E\d{4} [\d:.]+ \d+ \S+\] "?(.*)')
# The log escapes line ends within a message.
_AFTER_MESSAGE = '";\n '
_CALL_STACK = re.compile(r"(\\n|\n)+At:")
NO_GPU_LINES = re.compile("CudaDriverHelper|CUDA driver version is insufficient")
"""What Triton logs as errors on every machine without a GPU."""
_LOAD_FAILED = "failed to load"


class LogRelay:
    """Copies a stream line by line to a sink, in its own thread, and keeps the last lines.

    Args:
        stream: the server's output; closed when it ends.
        sink: where it goes. What it does not take, such as a full disk, is dropped: a server whose output nobody reads
            would stand still.
        dropped: lines that are not passed on, nor kept; None: none.
    """

    def __init__(self, stream: TextIO, sink: TextIO, dropped: re.Pattern[str] | None = None) -> None:
        self._stream = stream
        self._sink = sink
        self._dropped = dropped
        self._lines: deque[str] = deque(maxlen=_KEPT_LINES)
        self._thread = threading.Thread(target=self._run, name="triton-log", daemon=True)
        self._thread.start()

    def close(self, timeout_s: float = 2.0) -> None:
        """Waits for the stream to end, for at most `timeout_s`: a process may keep it open."""
        self._thread.join(timeout_s)

    @property
    def says_load_failed(self) -> bool:
        """Whether one of the last lines says that a model did not load."""
        return any(_LOAD_FAILED in line for line in self.lines)

    @property
    def lines(self) -> list[str]:
        """The last lines, without line ends."""
        return list(self._lines)

    def _run(self) -> None:
        with self._stream:
            for line in self._stream:
                if self._dropped is not None and self._dropped.search(line):
                    continue
                self._lines.append(line.rstrip("\n"))
                with contextlib.suppress(OSError, ValueError):  # ValueError: it is closed
                    self._sink.write(line)
                    self._sink.flush()


def without_call_stack(message: str) -> str:
    """Triton's message about a Python model, without Python's call stack."""
    text, *stack = _CALL_STACK.split(message, maxsplit=1)
    return text.rstrip(_AFTER_MESSAGE) if stack else text


def failure_lines(lines: Iterable[str]) -> list[str]:
    """The lines of a log that explain a failed start, without Python's call stacks.

    Returns:
        The messages about models that did not load; if there are none, all messages of error lines; if there are
        none either, the last lines.
    """
    lines = list(lines)
    matches = (_ERROR_LINE.match(line) for line in lines)
    messages = [without_call_stack(match.group(1)).rstrip(_AFTER_MESSAGE) for match in matches if match]
    errors = [message for message in dict.fromkeys(messages) if not NO_GPU_LINES.search(message)]
    loads = [message for message in errors if message.startswith(_LOAD_FAILED)]
    return (loads or errors)[:_SHOWN_LINES] or lines[-_SHOWN_LINES:]
