"""What a run trains in which steps: one stage, or two for a scorer that begins as an inner product."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from .config import OptimizationConfig, TrainingConfig
from .data.prepared import PreparedData
from .distributed import ProcessInfo
from .models.kernel_scorer import KernelScorer
from .models.neural_scorer import NeuralScorer
from .models.scorer import AnyScorer
from .objective import TrainingObjective
from .row_objective import RowObjective
from .row_sampling import RowSampler
from .sampling import BatchSampler, Sampler


@dataclass(frozen=True)
class Stage:
    """Steps `first` to `last` - 1 of a run.

    Attributes:
        sampler: gives the stage's batches, counted from its first step.
        optimization: its schedule; `steps` are those of the stage.
        heads: whether the heads of a `KernelScorer` take part.
    """

    first: int
    sampler: Sampler[Any]
    optimization: OptimizationConfig
    heads: bool = True

    @property
    def last(self) -> int:
        """The first step after the stage."""
        return self.first + self.optimization.steps

    def learning_rate(self, step: int) -> float:
        """Linear warm-up, then a cosine from the peak to `final_learning_rate_ratio` of it."""
        config, step = self.optimization, step - self.first
        if step < config.warmup_steps:
            return config.learning_rate * (step + 1) / config.warmup_steps
        progress = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
        low = config.final_learning_rate_ratio
        return config.learning_rate * (low + (1 - low) * 0.5 * (1 + math.cos(math.pi * progress)))


def stages(data: PreparedData, config: TrainingConfig, process: ProcessInfo) -> list[Stage]:
    """The stages of a run, in order."""
    main, place = config.optimization, (process.rank, process.world_size)
    if config.model.architecture != "kernel":
        return [Stage(0, BatchSampler(data, config, *place), main)]
    sampler = RowSampler(data, config, main.batch_size, config.loss.negatives, *place)
    if config.start is None:
        return [Stage(0, sampler, main)]
    start = config.start
    first = main.model_copy(update={"steps": start.steps, "learning_rate": start.learning_rate})
    rows = RowSampler(data, config, start.batch_size, start.negatives, *place)
    return [Stage(0, rows, first, heads=False), Stage(start.steps, sampler, main)]


def objective_of(model: AnyScorer, data: PreparedData, config: TrainingConfig) -> TrainingObjective | RowObjective:
    """The loss that trains a scorer."""
    if isinstance(model, KernelScorer):
        return RowObjective(model, config.loss)
    assert isinstance(model, NeuralScorer)
    return TrainingObjective(model, config.loss, torch.tensor(data.train_counts))


def parameter_groups(model: AnyScorer, config: OptimizationConfig) -> list[dict[str, Any]]:
    """Parameters for the optimizer; the gradients of each group are clipped separately.

    `ratio` is the group's learning rate, relative to the stage's. A light head is a group, and so are the heads of a
    `KernelScorer`.
    """
    apart: list[nn.Parameter] = []
    ratio = 1.0
    if isinstance(model, KernelScorer):
        apart, ratio = model.head_parameters(), config.heads_learning_rate
    elif isinstance(model, NeuralScorer) and model.light is not None:
        apart = list(model.light.parameters())
    own = {id(parameter) for parameter in apart}
    scorer = [parameter for parameter in model.parameters() if id(parameter) not in own]
    groups = [{"params": scorer, "ratio": 1.0}, {"params": apart, "ratio": ratio}]
    return [group for group in groups if group["params"]]
