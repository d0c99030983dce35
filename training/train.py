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
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from nann.errors import ConfigError

from .before_training import check_before_training, check_resumed, check_run, remove_run
from .checkpoint import BEST_FILE, CHECKPOINT_FILE, Checkpoint, build_model, load_weights
from .config import OptimizationConfig, TrainingConfig
from .data.prepared import PreparedData
from .distributed import ProcessInfo, process_group
from .interruption import Interruption
from .models.kernel_scorer import KernelScorer
from .objective import Losses
from .run_log import RunLog
from .stages import Stage, objective_of, parameter_groups, stages
from .validation import Validation, Validator
from .vocabulary import Vocabulary
from .warm_start import WarmStart

AGREE_EVERY_STEPS = 20
"""Under torchrun the processes agree on whether to stop only so often."""


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
    overwrite: bool = False,
    warm_start: WarmStart | None = None,
    checkpoint_every_steps: int = 1000,
    checkpoint_every_s: float = 180.0,
    stop_at_step: int | None = None,
) -> TrainingReport:
    """Trains a scorer and writes into `out`.

    `checkpoint.pt` is the last step, `best.pt` the step with the best validation recall. It is written after so many
    steps or seconds, whatever comes first, and on Ctrl-C or SIGTERM. With `resume` the run goes on from it, and gives
    the same result as an uninterrupted run; with `overwrite` a run in `out` is removed. `stop_at_step` ends it as an
    interruption would: the schedule still follows `config`. A new run begins with the weights of `warm_start`, if it is
    given, and writes them as step 0.

    Raises:
        ConfigError: if `out` has a run and neither `resume` nor `overwrite` is given; on resuming without a checkpoint
            or with other settings; if there are fewer items than the search's top_k; if the losses are not finite any
            more: the checkpoint before stays.
        DataError: if the data set has a single item, or is not the one that the run trained on before; if `config` asks
            for early stopping and the data set has no validation users; if it and `warm_start` describe items or users
            differently.
        KeyboardInterrupt: on Ctrl-C or SIGTERM, after the step was saved; its message says how to go on.
    """
    check_run(out, resume=resume, overwrite=overwrite)
    check_before_training(data, config)
    out.mkdir(parents=True, exist_ok=True)
    with process_group() as process, Interruption() as interruption:
        run = _Run(data, config, out, process, interruption)
        first = run.restore() if resume else run.begin(warm_start)
        last = min(stop_at_step or config.steps, config.steps)
        return run.steps(first, last, checkpoint_every_steps, checkpoint_every_s)


def uses_bf16(config: OptimizationConfig, device: torch.device) -> bool:
    """Whether matrix products run in bfloat16 on this device."""
    if config.precision != "auto":
        return config.precision == "bf16"
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    has_instructions = getattr(torch.cpu, "_is_avx512_bf16_supported", None)  # no public query exists
    return bool(has_instructions and has_instructions())


class _Run:
    def __init__(
        self, data: PreparedData, config: TrainingConfig, out: Path, process: ProcessInfo, interruption: Interruption
    ) -> None:
        self.data, self.config, self.out, self.process = data, config, out, process
        self.interruption = interruption
        self.best: Validation | None = None
        self.saved: int | None = None
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

    def begin(self, warm_start: WarmStart | None) -> int:
        """Replaces an earlier run, and returns the first step."""
        if warm_start is not None:
            warm_start.apply(self.model)
        if self.process.is_main:
            remove_run(self.out)
        if warm_start is not None:  # its file may be one of those removed
            self._save(0, CHECKPOINT_FILE)
        return 0

    def restore(self) -> int:
        """Loads the last checkpoint and returns its step."""
        path = self.out / CHECKPOINT_FILE
        checkpoint = Checkpoint.load(path)
        load_weights(self.model, checkpoint.model)
        check_resumed(checkpoint, self.config, self.data, path)
        self.optimizer.load_state_dict(checkpoint.optimizer)
        # Recall at another top_k is no rival.
        same = checkpoint.config.search.top_k == self.config.search.top_k
        self.best = checkpoint.best if same else None
        self.saved = checkpoint.step
        if checkpoint.config != self.config:  # later commands read the settings there, even if no step is left
            self._save(checkpoint.step, CHECKPOINT_FILE)
        return checkpoint.step

    def steps(self, first: int, last: int, checkpoint_every_steps: int, checkpoint_every_s: float) -> TrainingReport:
        start = saved_at = time.perf_counter()
        over = self._is_over(first)
        done, last, losses, examples, stops = first, first if over else last, None, 0, False
        with RunLog(self.out, self.process, first, last) as log, closing(self._batches(first, last, log)) as batches:
            for stage, module, batch in batches:
                losses = self._step(module, stage, done, batch)
                done += 1
                examples += batch.example_count * self.process.world_size
                validates, stops = self._validates(done), self._is_told_to_stop(done)
                saves = stops or done % checkpoint_every_steps == 0 or done == last
                saves = saves or time.perf_counter() - saved_at >= checkpoint_every_s
                if self.process.is_main and (log.is_due(done) or validates or saves):
                    self._require_finite(done, losses.total)
                    log.steps(done, examples, losses, self.optimizer.param_groups[0]["lr"])
                with log.paused():
                    over = validates and self._validate(done, log)
                    if saves or over:
                        self._save(done, CHECKPOINT_FILE)
                        saved_at = time.perf_counter()
                if over or stops:
                    break
            step_s = log.step_s
        if stops and not over and done < last:
            raise KeyboardInterrupt(self._how_to_go_on(done))
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

    def _batches(self, first: int, last: int, log: RunLog) -> Generator[tuple[Stage, nn.Module, Any]]:
        """The batches of steps `first` to `last` - 1, each with its stage and the objective as the stage trains it."""
        for stage in self.stages:
            start, end = max(first, stage.first), min(last, stage.last)
            if start < end:
                module = self._enter(stage)
                log.begin_stage(start, end)
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
        clip = self.config.optimization.clip_norm
        norms = [nn.utils.clip_grad_norm_(group["params"], clip) for group in self.optimizer.param_groups]
        if self.process.device.type == "cpu":  # on a GPU it would wait for each step: there reports and checkpoints ask
            self._require_finite(step + 1, losses.total, *norms)
        # Moments of items that have not been seen for long fade to denormal numbers, which processors handle slowly.
        torch.set_flush_denormal(True)
        self.optimizer.step()
        torch.set_flush_denormal(False)
        return losses

    def _require_finite(self, step: int, *values: Tensor) -> None:
        """Raises ConfigError if a loss or the norm of gradients is NaN or infinite: no later step could mend that."""
        if all(bool(value.isfinite().all()) for value in values):
            return
        path = self.out / CHECKPOINT_FILE
        kept = "there is no checkpoint" if self.saved is None else f"{path} has step {self.saved:,}, before that"
        found = next(value for value in values if not bool(value.isfinite().all()))
        what = f"the loss or its gradient is {found.item()}" if found.ndim == 0 else "a weight is NaN or infinite"
        raise ConfigError(
            f"{what} at step {step:,}, so training stopped; {kept}. Lower optimization.learning_rate (and "
            "start.learning_rate), or set optimization.precision to fp32 if it is not, and train again"
        )

    def _is_told_to_stop(self, done: int) -> bool:
        """Whether Ctrl-C or SIGTERM came to the main process; all processes hear of it after the same step."""
        if not self.process.is_distributed:
            return self.interruption.requested
        return done % AGREE_EVERY_STEPS == 0 and self.process.told_by_main(self.interruption.requested)

    def _how_to_go_on(self, done: int) -> str:
        return (
            f"interrupted: {self.out / CHECKPOINT_FILE} has step {done:,} of {self.config.steps:,}; go on with "
            "`nann train --resume` and the same options, without --overwrite"
        )

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
            self._require_finite(step, *self.model.parameters())
            weights, optimizer = self.model.state_dict(), self.optimizer.state_dict()
            what = self.data.identity, Vocabulary.of(self.data)
            Checkpoint(self.config, step, weights, optimizer, self.best, *what).save(self.out / name)
            self.saved = step if name == CHECKPOINT_FILE else self.saved


def _last_losses(losses: Losses | None) -> dict[str, float]:
    values = [math.nan] * 3 if losses is None else [term.item() for term in losses[1:]]
    return dict(zip(("nce_loss", "auxiliary_loss", "light_loss"), values, strict=True))


def _seed(*numbers: int) -> int:
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])
