"""What a run tells while it trains: a progress bar or, in a log file, lines; TensorBoard; time and memory."""

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
    """Time and memory of a run in every process; words and TensorBoard in the main one.

    Args:
        process: this one.
        first: the step the run begins with.
        examples_per_step: of all processes.
        progress: the bar, with one task that has a `text`.
        writer: None in all processes but the main one.
    """

    def __init__(
        self,
        process: ProcessInfo,
        first: int,
        examples_per_step: int,
        progress: Progress,
        writer: SummaryWriter | None,
    ) -> None:
        self._device = process.device
        self._examples_per_step = examples_per_step
        self._progress, self._writer = progress, writer
        self._validated = ""
        self._start = time.perf_counter()
        self._last = (first, 0.0)

    @property
    def step_s(self) -> float:
        """Seconds of all steps until now, without the pauses."""
        return time.perf_counter() - self._start

    @contextmanager
    def paused(self) -> Iterator[None]:
        """What is done inside is no part of a step's time: validation and checkpoints."""
        before = time.perf_counter()
        yield
        self._start += time.perf_counter() - before

    @property
    def peak_memory_bytes(self) -> int:
        """The most memory that this process has had so far."""
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

    @property
    def peak_gpu_memory_bytes(self) -> int | None:
        """The most that its tensors have had on the GPU; None on a CPU."""
        return torch.cuda.max_memory_allocated(self._device) if self._device.type == "cuda" else None

    def steps(self, done: int, losses: Losses, learning_rate: float) -> None:
        """After `done` steps; times are means over the steps since the last call."""
        nce, auxiliary, light = (term.item() for term in losses[1:])  # waits for the GPU, so that the time is right
        before, seconds = self._last
        self._last = (done, self.step_s)
        step_s = (self.step_s - seconds) / (done - before)
        rate, memory = self._examples_per_step / step_s, [self.peak_memory_bytes, self.peak_gpu_memory_bytes]
        numbers = {
            "loss/nce": nce,
            "loss/auxiliary": auxiliary,
            "loss/light": light,
            "learning_rate": learning_rate,
            "step_ms": 1e3 * step_s,
            "examples_per_s": rate,
            "memory/peak_bytes": memory[0],
            "memory/peak_gpu_bytes": memory[1],
        }
        self._scalars(numbers, done)
        text = f"nce {nce:.4f}  aux {auxiliary:.2e}  light {light:.4f}  {1e3 * step_s:.1f} ms a step"
        sizes = " + ".join(f"{size / 2**30:.1f} GiB{on}" for size, on in zip(memory, ("", " GPU"), strict=True) if size)
        text += f"  {rate:,.0f} examples/s  peak {sizes}"
        task = self._progress.tasks[0]
        self._progress.update(task.id, completed=done, text=f"{text}  {self._validated}")
        tenth = (task.total or done) / 10
        if not self._progress.console.is_terminal and done // tenth > before // tenth:
            self._progress.console.print(
                f"step {done:,}: {text}", soft_wrap=True
            )  # no bar in a log file, but a line every tenth

    def validation(self, found: Validation, best: Validation) -> None:
        """A line for each validation; the bar keeps showing the last."""
        numbers = {"validation/recall": found.recall, "validation/coverage": found.coverage}
        self._scalars(numbers, found.step)
        text = f"validation recall {100 * found.recall:.2f}%"
        if found.coverage is not None:
            text += f"  light coverage {100 * found.coverage:.2f}%"
        self._validated = f"{text}  best {100 * best.recall:.2f}% at {best.step:,}"
        self._progress.console.print(f"step {found.step:,}: {self._validated}", soft_wrap=True)

    def _scalars(self, numbers: dict[str, float | None], step: int) -> None:
        for name, value in numbers.items():
            if value is not None and self._writer is not None:
                self._writer.add_scalar(name, value, step)


@contextmanager
def run_log(out: Path, process: ProcessInfo, first: int, last: int, examples_per_step: int) -> Iterator[RunLog]:
    """The log of a run from step `first` to `last`, with TensorBoard's files below `out`."""
    progress = Progress(
        TextColumn("training"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[text]}"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=not process.is_main,
    )
    progress.add_task("training", total=last, completed=first, text="")
    writer = SummaryWriter(str(out / TENSORBOARD_FOLDER)) if process.is_main else None
    try:
        with progress:
            yield RunLog(process, first, examples_per_step, progress, writer)
    finally:
        if writer is not None:
            writer.close()
