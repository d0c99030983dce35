"""The training loop: the same on CPU, on GPU and under torchrun."""

from __future__ import annotations

import math
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from nann.errors import ConfigError

from .checkpoint import Checkpoint, build_model, load_weights
from .config import OptimizationConfig, TrainingConfig
from .data.prepared import PreparedData
from .distributed import ProcessInfo, process_group
from .objective import Batch, Losses, TrainingObjective
from .run_log import RunLog
from .sampling import BatchSampler
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
    """The scorer's parameters, and apart the light head's if there is one: their gradients are clipped separately."""
    light = list(objective.model.light.parameters()) if objective.model.light is not None else []
    own = {id(parameter) for parameter in light}
    scorer = [parameter for parameter in objective.parameters() if id(parameter) not in own]
    return [scorer, light] if light else [scorer]


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
        objective = TrainingObjective(build_model(config, data), config.loss, torch.tensor(data.train_counts))
        self.objective = objective.to(process.device)
        self.module: nn.Module = DistributedDataParallel(objective) if process.is_distributed else objective
        self.optimizer = torch.optim.AdamW(
            [{"params": group} for group in parameter_groups(objective)],
            lr=config.optimization.learning_rate,
            weight_decay=config.optimization.weight_decay,
        )
        self.sampler = BatchSampler(data, config, process.rank, process.world_size)
        self.bf16 = uses_bf16(config.optimization, process.device)
        settings = config.validation
        wanted = settings.every and (settings.patience or data.target_users("validation").size)
        self.validator = Validator(data, config, process.device) if wanted else None

    def restore(self) -> int:
        """Loads the last checkpoint and returns its step."""
        path = self.out / CHECKPOINT_FILE
        checkpoint = Checkpoint.load(path)
        load_weights(self.objective.model, checkpoint.model)
        if checkpoint.config.fingerprint != self.config.fingerprint:
            raise ConfigError(f"{path} was made with another configuration; give the same one, or train from the start")
        self.optimizer.load_state_dict(checkpoint.optimizer)
        self.best = checkpoint.best
        return checkpoint.step

    def steps(self, first: int, last: int, checkpoint_every_steps: int) -> TrainingReport:
        start = time.perf_counter()
        examples_per_step = self.config.optimization.batch_size * self.process.world_size
        over = self._is_over(first)
        done, last, losses = first, first if over else last, None
        with (
            RunLog(self.out, self.process, first, last, examples_per_step) as log,
            closing(self.sampler.batches(first, last)) as batches,
        ):
            for batch in batches:
                losses = self._step(done, batch)
                done += 1
                validates = self._validates(done)
                saves = done % checkpoint_every_steps == 0 or done == last
                if self.process.is_main and (done % LOG_EVERY_STEPS == 0 or validates or saves):
                    log.steps(done, losses, self.optimizer.param_groups[0]["lr"])
                with log.paused():
                    over = validates and self._validate(done, log)
                    if saves or over:
                        self._save(done, CHECKPOINT_FILE)
                if over:
                    break
            step_s = log.step_s
        steps = done - first
        return TrainingReport(
            checkpoint=self.out / CHECKPOINT_FILE,
            steps=done,
            examples=steps * examples_per_step,
            seconds=time.perf_counter() - start,
            step_ms=1e3 * step_s / max(steps, 1),
            examples_per_s=steps * examples_per_step / max(step_s, 1e-9),
            **_last_losses(losses),
            peak_memory_bytes=log.peak_memory_bytes,
            peak_gpu_memory_bytes=log.peak_gpu_memory_bytes,
            best=self.best,
            best_checkpoint=self.out / BEST_FILE if self.best else None,
            stopped_early=over and done < self.config.optimization.steps,
        )

    def _step(self, step: int, batch: Batch) -> Losses:
        batch = batch.to(self.process.device)
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

    def _validates(self, done: int) -> bool:
        is_last = done == self.config.optimization.steps
        return self.validator is not None and (is_last or done % self.config.validation.every == 0)

    def _validate(self, done: int, log: RunLog) -> bool:
        """Validates in the main process, keeps the best weights, and tells every process whether the run is over."""
        if self.process.is_main and self.validator is not None:
            found = self.validator.measure(self.objective.model, done)
            if self.best is None or found.recall > self.best.recall:
                self.best = found
                self._save(done, BEST_FILE)
            log.validation(found, self.best)
        return self.process.told_by_main(self._is_over(done))

    def _is_over(self, done: int) -> bool:
        """Whether none of the last `patience` validations was better than the best before them."""
        settings = self.config.validation
        if self.best is None or settings.patience is None:
            return False
        return done - self.best.step >= settings.patience * settings.every

    def _save(self, step: int, name: str) -> None:
        if self.process.is_main:
            weights, optimizer = self.objective.model.state_dict(), self.optimizer.state_dict()
            Checkpoint(self.config, step, weights, optimizer, self.best).save(self.out / name)


def _last_losses(losses: Losses | None) -> dict[str, float]:
    values = [math.nan] * 3 if losses is None else [term.item() for term in losses[1:]]
    return dict(zip(("nce_loss", "auxiliary_loss", "light_loss"), values, strict=True))
