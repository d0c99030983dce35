"""Progress of a training run: a bar on a terminal, lines in a log file, TensorBoard, time and memory."""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch.utils.tensorboard import SummaryWriter

from .distributed import ProcessInfo
from .objective import Losses
from .validation import Validation

TENSORBOARD_FOLDER = "tensorboard"
EVERY_STEPS, EVERY_S = 20, 10.0
"""A report is due after so many steps or seconds; a log file gets a line at most once in so many seconds."""


class RunLog:
    """Measures time and memory in every process, and prints and writes TensorBoard logs in the main one.

    A context manager. `first` and `last` are the run's steps.
    """

    def __init__(self, out: Path, process: ProcessInfo, first: int, last: int) -> None:
        self._device = process.device
        columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[text]}"), TimeRemainingColumn())
        self._progress = Progress(
            TextColumn("training"), *columns, console=Console(stderr=True), disable=not process.is_main
        )
        self._task = self._progress.add_task("training", total=last, completed=first, text="")
        self._end = last
        self._writer = SummaryWriter(str(out / TENSORBOARD_FOLDER)) if process.is_main else None
        self._recall = ""
        self._last = (first, 0, 0.0)
        self._reported = self._printed = time.monotonic()
        self._stage: tuple[int, int, float] | None = None

    def __enter__(self) -> RunLog:
        self._progress.start()
        self._start = time.perf_counter()
        return self

    def __exit__(self, *error: object) -> None:
        self._progress.stop()
        if self._writer is not None:
            self._writer.close()

    @property
    def step_s(self) -> float:
        """Seconds of all steps so far, pauses excluded."""
        return time.perf_counter() - self._start

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Excludes validation and checkpoints from the time of a step."""
        before = time.perf_counter()
        yield
        self._start += time.perf_counter() - before

    @property
    def peak_memory_bytes(self) -> int:
        """Peak resident memory of this process."""
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

    @property
    def peak_gpu_memory_bytes(self) -> int | None:
        """Peak memory of this process's tensors on the GPU; None on a CPU."""
        return torch.cuda.max_memory_allocated(self._device) if self._device.type == "cuda" else None

    def begin_stage(self, first: int, end: int) -> None:
        """Steps `first` to `end` - 1, which all cost about the same, begin: their first report estimates their time."""
        self._stage = (first, end, self.step_s)

    def is_due(self, done: int) -> bool:
        """Whether `steps` is to report after `done` steps."""
        return done % EVERY_STEPS == 0 or time.monotonic() - self._reported >= EVERY_S

    def steps(self, done: int, examples: int, losses: Losses, learning_rate: float) -> None:
        """Reports after `done` steps and `examples` of this run; times are means over the steps since the last call."""
        nce, auxiliary, light = (term.item() for term in losses[1:])  # waits for the GPU, before the time is taken
        before, examples_before, seconds = self._last
        self._last = (done, examples, self.step_s)
        self._reported = time.monotonic()
        step_s = (self._last[2] - seconds) / (done - before)
        rate = (examples - examples_before) / (self._last[2] - seconds)
        memory, gpu_memory = self.peak_memory_bytes, self.peak_gpu_memory_bytes
        self._scalars(done, "loss/", nce=nce, auxiliary=auxiliary, light=light)
        self._scalars(done, "", learning_rate=learning_rate, step_ms=1e3 * step_s, examples_per_s=rate)
        self._scalars(done, "memory/", peak_bytes=memory, peak_gpu_bytes=gpu_memory)
        text = f"nce {nce:.4f}  aux {auxiliary:.2e}  light {light:.4f}{self._recall}  {1e3 * step_s:.1f} ms a step"
        text += f"  {rate:,.0f} examples/s  {memory / 2**30:.1f} GiB"
        if gpu_memory is not None:
            text += f", {gpu_memory / 2**30:.1f} GiB on the GPU"
        self._progress.update(self._task, completed=done, text=text)
        self._print_estimate(done)
        # A log file gets a line now and then instead of a bar.
        is_time = self._reported - self._printed >= EVERY_S or done == self._end
        if is_time and not self._progress.console.is_terminal:
            self._printed = self._reported
            self._print(f"step {done:,}: {text}")

    def validation(self, found: Validation, best: Validation) -> None:
        """Prints a line for a validation, and adds its recall to the bar's text."""
        self._scalars(found.step, "validation/", recall=found.recall, coverage=found.coverage)
        text = f"validation recall {100 * found.recall:.2f}%"
        if found.coverage is not None:
            text += f"  light coverage {100 * found.coverage:.2f}%"
        self._print(f"step {found.step:,}: {text}  best {100 * best.recall:.2f}% at {best.step:,}")
        self._recall = f"  recall {100 * found.recall:.2f}%"

    def _print_estimate(self, done: int) -> None:
        """How long the rest of the stage takes, once for each stage, unless it is soon over."""
        if self._stage is None:
            return
        first, end, start_s = self._stage
        self._stage = None
        step_s = (self.step_s - start_s) / (done - first)
        if (seconds := step_s * (end - done)) >= EVERY_S:
            later = f", then come {self._end - end:,} of another stage" if end < self._end else ""
            self._print(
                f"{_time(seconds)} for the next {end - done:,} steps, {_time(step_s)} each, without validations{later}"
                "; Ctrl-C saves, and `nann train --resume` goes on"
            )

    def _print(self, line: str) -> None:
        self._progress.console.print(line, soft_wrap=True)

    def _scalars(self, step: int, group: str, **values: float | None) -> None:
        for name, value in values.items():
            if value is not None and self._writer is not None:
                self._writer.add_scalar(group + name, value, step)


def _time(seconds: float) -> str:
    """A duration in words: 2.1 ms, 7.8 s, 12 min, 43.3 h."""
    for unit, size in (("h", 3600.0), ("min", 60.0), ("s", 1.0)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{1e3 * seconds:.0f} ms"
