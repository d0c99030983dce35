"""The training loop: the same on CPU, on GPU and under torchrun."""

from __future__ import annotations

import math
import time
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from nann.errors import ConfigError

from .checkpoint import Checkpoint, build_model, load_weights
from .config import OptimizationConfig, TrainingConfig
from .data.prepared import PreparedData
from .distributed import ProcessInfo, process_group
from .models.kernel_scorer import KernelScorer
from .objective import Losses
from .run_log import RunLog
from .stages import Stage, objective_of, parameter_groups, stages
from .validation import Validation, Validator

CHECKPOINT_FILE = "checkpoint.pt"
BEST_FILE = "best.pt"
LOG_EVERY_STEPS = 20


@dataclass(frozen=True)
class TrainingReport:
    """What a run did. The losses are those of the last batch.

    Attributes:
        checkpoint: of the last step; later commands use it by default.
        steps: the step it ended at.
        examples: of this run, without those before it was resumed.
        seconds: wall time, validation and checkpoints included.
        step_ms, examples_per_s: mean over the steps, without them.
        peak_gpu_memory_bytes: of this process's tensors; None on a CPU.
        best: the validation with the best recall; None without validation, and outside the main process.
        best_checkpoint: the checkpoint of that step.
        stopped_early: whether `validation.patience` ended the run.
    """

    checkpoint: Path
    steps: int
    examples: int
    seconds: float
    step_ms: float
    examples_per_s: float
    nce_loss: float
    auxiliary_loss: float
    light_loss: float
    peak_memory_bytes: int
    peak_gpu_memory_bytes: int | None
    best: Validation | None
    best_checkpoint: Path | None
    stopped_early: bool


def train(
    data: PreparedData,
    config: TrainingConfig,
    out: Path,
    *,
    resume: bool = False,
    checkpoint_every_steps: int = 1000,
    stop_at_step: int | None = None,
) -> TrainingReport:
    """Trains a scorer and writes into `out`.

    `checkpoint.pt` is the last step, `best.pt` the step with the best validation recall. With `resume` the run goes on
    from `checkpoint.pt`, and gives the same result as an uninterrupted run. `stop_at_step` ends it as an interruption
    would: the schedule still follows `config`.

    Raises:
        ConfigError: on resuming without a checkpoint, or with another configuration than the checkpoint's.
        DataError: if `config` asks for early stopping and the data set has no validation users.
    """
    out.mkdir(parents=True, exist_ok=True)
    with process_group() as process:
        run = _Run(data, config, out, process)
        if process.is_main and not resume:
            (out / BEST_FILE).unlink(missing_ok=True)  # of another run
        first = run.restore() if resume else 0
        last = min(stop_at_step or config.steps, config.steps)
        return run.steps(first, last, checkpoint_every_steps)


def uses_bf16(config: OptimizationConfig, device: torch.device) -> bool:
    """Whether matrix products run in bfloat16 on this device."""
    if config.precision != "auto":
        return config.precision == "bf16"
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    has_instructions = getattr(torch.cpu, "_is_avx512_bf16_supported", None)  # no public query exists
    return bool(has_instructions and has_instructions())


class _Run:
    def __init__(self, data: PreparedData, config: TrainingConfig, out: Path, process: ProcessInfo) -> None:
        self.config, self.out, self.process = config, out, process
        self.best: Validation | None = None
        torch.manual_seed(config.seed)
        self.model = build_model(config, data).to(process.device)
        self.objective = objective_of(self.model, data, config).to(process.device)
        self.optimizer = torch.optim.AdamW(
            parameter_groups(self.model, config.optimization),
            lr=config.optimization.learning_rate,
            betas=(0.9, config.optimization.adam_beta2),
            weight_decay=config.optimization.weight_decay,
            fused=True,
        )
        self.stages = stages(data, config, process)
        self.bf16 = uses_bf16(config.optimization, process.device)
        settings = config.validation
        wanted = settings.every and (settings.patience or data.target_users("validation").size)
        self.validator = Validator(data, config, process.device) if wanted else None

    def restore(self) -> int:
        """Loads the last checkpoint and returns its step."""
        path = self.out / CHECKPOINT_FILE
        checkpoint = Checkpoint.load(path)
        load_weights(self.model, checkpoint.model)
        if checkpoint.config.fingerprint != self.config.fingerprint:
            raise ConfigError(f"{path} was made with another configuration; give the same one, or train from the start")
        self.optimizer.load_state_dict(checkpoint.optimizer)
        self.best = checkpoint.best
        return checkpoint.step

    def steps(self, first: int, last: int, checkpoint_every_steps: int) -> TrainingReport:
        start = time.perf_counter()
        over = self._is_over(first)
        done, last, losses, examples = first, first if over else last, None, 0
        with RunLog(self.out, self.process, first, last) as log, closing(self._batches(first, last)) as batches:
            for stage, module, batch in batches:
                losses = self._step(module, stage, done, batch)
                done += 1
                examples += batch.example_count * self.process.world_size
                validates = self._validates(done)
                saves = done % checkpoint_every_steps == 0 or done == last
                if self.process.is_main and (done % LOG_EVERY_STEPS == 0 or validates or saves):
                    log.steps(done, examples, losses, self.optimizer.param_groups[0]["lr"])
                with log.paused():
                    over = validates and self._validate(done, log)
                    if saves or over:
                        self._save(done, CHECKPOINT_FILE)
                if over:
                    break
            step_s = log.step_s
        return TrainingReport(
            checkpoint=self.out / CHECKPOINT_FILE,
            steps=done,
            examples=examples,
            seconds=time.perf_counter() - start,
            step_ms=1e3 * step_s / max(done - first, 1),
            examples_per_s=examples / max(step_s, 1e-9),
            **_last_losses(losses),
            peak_memory_bytes=log.peak_memory_bytes,
            peak_gpu_memory_bytes=log.peak_gpu_memory_bytes,
            best=self.best,
            best_checkpoint=self.out / BEST_FILE if self.best else None,
            stopped_early=over and done < self.config.steps,
        )

    def _batches(self, first: int, last: int) -> Generator[tuple[Stage, nn.Module, Any]]:
        """The batches of steps `first` to `last` - 1, each with its stage and the objective as the stage trains it."""
        for stage in self.stages:
            start, end = max(first, stage.first), min(last, stage.last)
            if start < end:
                module = self._enter(stage)
                with closing(stage.sampler.batches(start - stage.first, end - stage.first)) as batches:
                    for batch in batches:
                        yield stage, module, batch

    def _enter(self, stage: Stage) -> nn.Module:
        """The objective as the stage trains it."""
        if isinstance(self.model, KernelScorer):
            self.model.use_heads(stage.heads)
        return DistributedDataParallel(self.objective) if self.process.is_distributed else self.objective

    def _step(self, module: nn.Module, stage: Stage, step: int, batch: Any) -> Losses:
        batch = batch.to(self.process.device)
        for group in self.optimizer.param_groups:
            group["lr"] = group["ratio"] * stage.learning_rate(step)
        # Dropout depends on the step alone, so that a resumed run is the same as an uninterrupted one.
        torch.manual_seed(_seed(self.config.seed, step, self.process.rank))
        with torch.autocast(self.process.device.type, torch.bfloat16, enabled=self.bf16):
            losses: Losses = module(batch)
        self.optimizer.zero_grad(set_to_none=True)
        losses.total.backward()
        for group in self.optimizer.param_groups:
            nn.utils.clip_grad_norm_(group["params"], self.config.optimization.clip_norm)
        # Moments of items that have not been seen for long fade to denormal numbers, which processors handle slowly.
        torch.set_flush_denormal(True)
        self.optimizer.step()
        torch.set_flush_denormal(False)
        return losses

    def _validates(self, done: int) -> bool:
        is_last = done == self.config.steps
        return self.validator is not None and (is_last or done % self.config.validation.every == 0)

    def _validate(self, done: int, log: RunLog) -> bool:
        """Validates in the main process, keeps the best weights, and tells every process whether the run is over."""
        if self.process.is_main and self.validator is not None:
            found = self.validator.measure(self.model, done)
            best = self.best
            # The two-sided form of the start is no rival of the scorer.
            if best is None or found.recall > best.recall or best.step <= self.config.start_steps < done:
                best = self.best = found
                self._save(done, BEST_FILE)
            log.validation(found, best)
        return self.process.told_by_main(self._is_over(done))

    def _is_over(self, done: int) -> bool:
        """Whether none of the last `patience` validations was better than the best before them."""
        settings = self.config.validation
        if self.best is None or settings.patience is None or self.best.step <= self.config.start_steps:
            return False
        return done - self.best.step >= settings.patience * settings.every

    def _save(self, step: int, name: str) -> None:
        if self.process.is_main:
            weights, optimizer = self.model.state_dict(), self.optimizer.state_dict()
            Checkpoint(self.config, step, weights, optimizer, self.best).save(self.out / name)


def _last_losses(losses: Losses | None) -> dict[str, float]:
    values = [math.nan] * 3 if losses is None else [term.item() for term in losses[1:]]
    return dict(zip(("nce_loss", "auxiliary_loss", "light_loss"), values, strict=True))


def _seed(*numbers: int) -> int:
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])
