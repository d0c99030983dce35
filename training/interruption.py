"""Ctrl-C and SIGTERM during training: the step ends and is saved before the program does."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType, TracebackType

_NOTICE = b"\nstopping: this step ends and is saved; once more stops at once, without saving\n"


class Interruption:
    """A context manager that notes the first Ctrl-C or SIGTERM; a second one is a KeyboardInterrupt at once.

    Only the main thread can take signals: elsewhere, and where a signal is ignored, nothing changes.
    """

    def __init__(self) -> None:
        self.requested = False
        self._before: dict[int, signal._HANDLER] = {}

    def __enter__(self) -> Interruption:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
        os.write(2, _NOTICE)  # a stream that the program is writing to may not be entered again
