"""TensorRT's Python API: finds the installed library, collects its errors, shows its progress on the terminal.

Triton's containers have `tensorrt`. `tensorrt_rtx` has nearly the same API, and builds for a given compute capability
without a GPU, so that this code can be tested anywhere.
"""

from __future__ import annotations

import contextlib
import importlib
from typing import Any

from rich.progress import Progress, TaskID

from nann.errors import ConfigError

LIBRARIES = {"tensorrt": "tensorrt", "tensorrt_bindings": "tensorrt", "tensorrt_rtx": "tensorrt_rtx"}
"""Module -> library. `tensorrt_bindings` is `tensorrt` with its shared libraries installed separately."""


def find_tensorrt() -> Any:
    """The module of TensorRT, or else of TensorRT for RTX; raises ConfigError if neither is installed."""
    for name in LIBRARIES:
        with contextlib.suppress(ImportError):
            return importlib.import_module(name)
    raise ConfigError(
        "TensorRT is not installed. Build where the plans will be served: in a checkout, `docker compose --profile gpu "
        "run --rm build-engine`; elsewhere, install the tensorrt package of the server's TensorRT version. "
        "`pip install 'nann[trt-rtx]'` installs TensorRT for RTX, which builds for RTX GPUs, also without one"
    )


def make_logger(trt: Any) -> Any:
    """A logger that prints nothing and collects error messages in its list `errors`."""

    class Logger(trt.ILogger):
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity <= trt.ILogger.ERROR:
                self.errors.append(message)

    return Logger()


def make_progress_monitor(trt: Any, progress: Progress) -> Any:
    """TensorRT's phases as bars of a rich progress display."""

    class Monitor(trt.IProgressMonitor):
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self._tasks: dict[str, TaskID] = {}

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            indent = "  " if parent_phase else ""
            self._tasks[phase_name] = progress.add_task(f"{indent}{phase_name}", total=num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            progress.update(self._tasks[phase_name], completed=step)
            return True

        def phase_finish(self, phase_name: str) -> None:
            progress.remove_task(self._tasks.pop(phase_name))

    return Monitor()
