"""The training loop: reads top to bottom, the same on CPU, GPU and under torchrun."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.tensorboard import SummaryWriter

from nann.errors import ConfigError

from .checkpoint import Checkpoint, build_model, load_weights
from .config import OptimizationConfig, TrainingConfig
from .data.prepared import PreparedData
from .distributed import ProcessInfo, process_group
from .objective import Losses, TrainingObjective
from .sampling import BatchSampler

CHECKPOINT_FILE = "checkpoint.pt"
TENSORBOARD_FOLDER = "tensorboard"
LOG_EVERY_STEPS = 20


@dataclass(frozen=True)
class TrainingReport:
    """What a run did."""

    checkpoint: Path
    steps: int
    examples: int
    seconds: float
    examples_per_s: float
    nce_loss: float
    auxiliary_loss: float
    light_loss: float


def train(
    data: PreparedData,
    config: TrainingConfig,
    out: Path,
    *,
    resume: bool = False,
    checkpoint_every_steps: int = 1000,
    stop_at_step: int | None = None,
) -> TrainingReport:
    """Trains a scorer and writes `out/checkpoint.pt` and TensorBoard logs.

    Args:
        data: a prepared data set.
        config: the run's configuration.
        out: folder of the run.
        resume: go on from `out/checkpoint.pt`; the result is the same as of an uninterrupted run.
        checkpoint_every_steps: how often the checkpoint is renewed.
        stop_at_step: end early, as an interrupted run would; the schedule keeps to `config`.

    Raises:
        ConfigError: on resuming with another configuration than the checkpoint's, or without a checkpoint.
    """
    out.mkdir(parents=True, exist_ok=True)
    with process_group() as process:
        torch.manual_seed(config.seed)
        objective = TrainingObjective(build_model(config, data), config.loss, torch.tensor(data.train_counts))
        objective.to(process.device)
        optimizer = torch.optim.AdamW(
            [{"params": group} for group in parameter_groups(objective)],
            lr=config.optimization.learning_rate,
            weight_decay=config.optimization.weight_decay,
        )
        first = _restore(objective, optimizer, config, out / CHECKPOINT_FILE) if resume else 0
        run = _Run(data, config, out, process, objective, optimizer)
        last = min(stop_at_step or config.optimization.steps, config.optimization.steps)
        return run.steps(first, last, checkpoint_every_steps)


def learning_rate(config: OptimizationConfig, step: int) -> float:
    """Linear warm-up, then a cosine from the peak to `final_learning_rate_ratio` of it."""
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    progress = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
    low = config.final_learning_rate_ratio
    return config.learning_rate * (low + (1 - low) * 0.5 * (1 + math.cos(math.pi * progress)))


def parameter_groups(objective: TrainingObjective) -> list[list[nn.Parameter]]:
    """The scorer's parameters, and the light head's if there is one: apart, so that clipping one leaves the other."""
    light = list(objective.model.light.parameters()) if objective.model.light is not None else []
    own = {id(parameter) for parameter in light}
    scorer = [parameter for parameter in objective.parameters() if id(parameter) not in own]
    return [scorer, light] if light else [scorer]


def uses_bf16(config: OptimizationConfig, device: torch.device) -> bool:
    """Whether matrix products run in bfloat16 on this device."""
    if config.precision != "auto":
        return config.precision == "bf16"
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    has_instructions = getattr(torch.cpu, "_is_avx512_bf16_supported", None)  # no public query exists
    return bool(has_instructions and has_instructions())


def _restore(objective: TrainingObjective, optimizer: torch.optim.Optimizer, config: TrainingConfig, path: Path) -> int:
    checkpoint = Checkpoint.load(path)
    load_weights(objective.model, checkpoint.model)
    if checkpoint.config != config:
        raise ConfigError(f"{path} was made with another configuration; give the same one, or start afresh")
    optimizer.load_state_dict(checkpoint.optimizer)
    return checkpoint.step


class _Run:
    def __init__(
        self,
        data: PreparedData,
        config: TrainingConfig,
        out: Path,
        process: ProcessInfo,
        objective: TrainingObjective,
        optimizer: torch.optim.Optimizer,
    ) -> None:
        self.config, self.out, self.process = config, out, process
        self.objective, self.optimizer = objective, optimizer
        self.sampler = BatchSampler(data, config, process.rank, process.world_size)
        self.bf16 = uses_bf16(config.optimization, process.device)
        self.module: nn.Module = DistributedDataParallel(objective) if process.is_distributed else objective

    def steps(self, first: int, last: int, checkpoint_every_steps: int) -> TrainingReport:
        start = time.perf_counter()
        losses = None
        with self._log() as writer, self._progress(first, last) as progress:
            for step in range(first, last):
                losses = self._step(step)
                done = step + 1
                if self.process.is_main and (done % LOG_EVERY_STEPS == 0 or done == last):
                    rate = self._examples(done - first) / (time.perf_counter() - start)
                    self._report(writer, progress, done, losses, rate)
                if self.process.is_main and (done % checkpoint_every_steps == 0 or done == last):
                    self._save(done)
        seconds = time.perf_counter() - start
        values = [term.item() for term in losses[1:]] if losses else [math.nan] * 3
        examples = self._examples(last - first)
        return TrainingReport(
            self.out / CHECKPOINT_FILE, last, examples, seconds, examples / max(seconds, 1e-9), *values
        )

    def _step(self, step: int) -> Losses:
        batch = self.sampler.batch(step).to(self.process.device)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.config.optimization, step)
        with torch.autocast(self.process.device.type, torch.bfloat16, enabled=self.bf16):
            losses: Losses = self.module(batch)
        self.optimizer.zero_grad(set_to_none=True)
        losses.total.backward()
        for group in self.optimizer.param_groups:
            nn.utils.clip_grad_norm_(group["params"], self.config.optimization.clip_norm)
        self.optimizer.step()
        return losses

    def _examples(self, steps: int) -> int:
        return steps * self.config.optimization.batch_size * self.process.world_size

    def _save(self, step: int) -> None:
        weights = self.objective.model.state_dict()
        Checkpoint(self.config, step, weights, self.optimizer.state_dict()).save(self.out / CHECKPOINT_FILE)

    @contextlib.contextmanager
    def _log(self) -> Iterator[SummaryWriter | None]:
        if not self.process.is_main:
            yield None
            return
        with SummaryWriter(str(self.out / TENSORBOARD_FOLDER)) as writer:
            yield writer

    def _report(
        self, writer: SummaryWriter | None, progress: Progress, done: int, losses: Losses, examples_per_s: float
    ) -> None:
        assert writer is not None
        nce, auxiliary, light = (term.item() for term in losses[1:])
        writer.add_scalar("loss/nce", nce, done)
        writer.add_scalar("loss/auxiliary", auxiliary, done)
        writer.add_scalar("loss/light", light, done)
        writer.add_scalar("learning_rate", self.optimizer.param_groups[0]["lr"], done)
        writer.add_scalar("examples_per_s", examples_per_s, done)
        text = f"nce {nce:.4f}  aux {auxiliary:.2e}  light {light:.4f}  {examples_per_s:,.0f} examples/s"
        progress.update(progress.task_ids[0], completed=done, text=text)
        tenth = self.config.optimization.steps / 10
        if not progress.console.is_terminal and done // tenth > (done - LOG_EVERY_STEPS) // tenth:
            progress.console.print(f"step {done:,}: {text}")  # no bar in a log file, but a line every tenth

    def _progress(self, first: int, last: int) -> Progress:
        progress = Progress(
            TextColumn("training"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[text]}"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            disable=not self.process.is_main,
        )
        progress.add_task("training", total=last, completed=first, text="")
        return progress
