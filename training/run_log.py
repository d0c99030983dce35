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
        self._tenth = last / 10
        self._writer = SummaryWriter(str(out / TENSORBOARD_FOLDER)) if process.is_main else None
        self._recall = ""
        self._last = (first, 0, 0.0)

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

    def steps(self, done: int, examples: int, losses: Losses, learning_rate: float) -> None:
        """Reports after `done` steps and `examples` of this run; times are means over the steps since the last call."""
        nce, auxiliary, light = (term.item() for term in losses[1:])  # waits for the GPU, before the time is taken
        before, examples_before, seconds = self._last
        self._last = (done, examples, self.step_s)
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
        # A log file gets ten lines instead of a bar.
        if not self._progress.console.is_terminal and done // self._tenth > before // self._tenth:
            self._progress.console.print(f"step {done:,}: {text}", soft_wrap=True)

    def validation(self, found: Validation, best: Validation) -> None:
        """Prints a line for a validation, and adds its recall to the bar's text."""
        self._scalars(found.step, "validation/", recall=found.recall, coverage=found.coverage)
        text = f"validation recall {100 * found.recall:.2f}%"
        if found.coverage is not None:
            text += f"  light coverage {100 * found.coverage:.2f}%"
        text += f"  best {100 * best.recall:.2f}% at {best.step:,}"
        self._progress.console.print(f"step {found.step:,}: {text}", soft_wrap=True)
        self._recall = f"  recall {100 * found.recall:.2f}%"

    def _scalars(self, step: int, group: str, **values: float | None) -> None:
        for name, value in values.items():
            if value is not None and self._writer is not None:
                self._writer.add_scalar(group + name, value, step)
