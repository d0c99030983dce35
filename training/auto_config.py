"""`nann train --config auto`: a configuration that fits a prepared data set, with the reasons for it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .config import (
    AuxiliaryConfig,
    KernelConfig,
    LossConfig,
    ModelConfig,
    OptimizationConfig,
    ProfileConfig,
    StartConfig,
    TrainingConfig,
    ValidationConfig,
)
from .data.prepared import PreparedData
from .row_sampling import RowSampler

AUTO = "auto"
LENGTH, LONG = 50, 300
"""How many behaviours a request ships, at least, and at most where users come back to items."""
REPEATS = 0.05
"""From this share of repeated targets on, the score knows what a user had before."""
START_EPOCHS, MAIN_EPOCHS = 12, 4
START_TARGETS, MAIN_TARGETS = 4_000_000, 500_000
"""Passes over the data beyond these targets are left out, but the first stage makes one pass at least."""
SMALL_BATCH, LARGE_BATCH, MANY_ITEMS = 1024, 2048, 30_000
"""Every step updates all items: with many of them, fewer and larger steps take less time."""
LOWEST_RATE, HIGHEST_RATE = 2e-4, 1e-3
"""Learning rate of the second stage."""
_SAMPLE = 20_000
_VALIDATIONS, _VALIDATION_PAIRS = 10, 5_000_000


@dataclass(frozen=True)
class Choice:
    """A configuration and, line by line, what in the data set led to it."""

    config: TrainingConfig
    reasons: tuple[str, ...]


def auto_config(data: PreparedData) -> Choice:
    """The `kernel` scorer, sized for the data set."""
    repeated, length = _histories(data)
    repeats = repeated >= REPEATS and not data.excludes_history
    length = int(np.clip(length, LENGTH, LONG)) if repeats else LENGTH
    model = ModelConfig(
        architecture="kernel",
        sequence_length=length,
        item_layers=(64,),
        kernel=KernelConfig(repeats=repeats),
        profile=ProfileConfig() if data.profile_fields else None,
    )
    loss = LossConfig(
        nce="ranking",
        negatives=512,
        own_items="masked" if data.excludes_history else "kept",
        auxiliary=AuxiliaryConfig(reading="none"),
    )
    main = OptimizationConfig(
        batch_size=512, heads_learning_rate=4.0, final_learning_rate_ratio=0.05, adam_beta2=0.98, steps=1
    )
    size = LARGE_BATCH if data.item_count > MANY_ITEMS else SMALL_BATCH
    start = StartConfig(steps=1, batch_size=size, negatives=size)
    config = TrainingConfig(model=model, loss=loss, start=start, optimization=main)
    first, end, _ = data.training_groups()
    targets = int((end - first).sum())
    config, epochs = _with_steps(config, data, targets)
    return Choice(
        config,
        (
            f"{targets:,} targets: {epochs[0]:.1f} passes in {config.start_steps:,} steps of the two-sided form, then "
            f"{epochs[1]:.1f} in {config.optimization.steps:,} steps of the whole scorer",
            f"{repeated:.0%} of the targets repeat an earlier item of their user"
            + (f": the score knows repeats, and a request ships {length} behaviours" if repeats else ""),
            "items are described by their ids"
            + (", categories" if data.category_count > 1 else "")
            + (f", {len(data.item_attributes.fields)} attributes" if data.item_attributes is not None else ""),
        ),
    )


def _histories(data: PreparedData) -> tuple[float, float]:
    """Of a sample of the targets: the share that repeats an item of the history, and how long most histories are."""
    first, _, users = data.training_groups()
    chosen = np.random.default_rng(0).choice(len(first), min(_SAMPLE, len(first)), replace=False)
    starts, first = data.user_first[users[chosen]], first[chosen]
    seen = data.contexts(starts, first, LONG)
    repeated = (seen == data.behavior_items[first, None]).any(axis=1)
    return float(repeated.mean()), float(np.quantile(first - starts, 0.75))


def _with_steps(config: TrainingConfig, data: PreparedData, targets: int) -> tuple[TrainingConfig, tuple[float, float]]:
    """The configuration with the steps of so many passes, and the passes."""
    start, main = config.start, config.optimization
    assert start is not None
    epochs = (min(START_EPOCHS, max(1.0, START_TARGETS / targets)), min(MAIN_EPOCHS, MAIN_TARGETS / targets))
    samplers = (
        RowSampler(data, config, start.batch_size, start.negatives),
        RowSampler(data, config, main.batch_size, config.loss.negatives),
    )
    steps = [max(1, round(some * sampler.steps_per_epoch)) for some, sampler in zip(epochs, samplers, strict=True)]
    # In less than a few passes a high rate forgets more of the first stage than it adds.
    rate = max(LOWEST_RATE, HIGHEST_RATE * epochs[1] / MAIN_EPOCHS)
    changes = {
        "start": start.model_copy(update={"steps": steps[0]}),
        "optimization": main.model_copy(update={"steps": steps[1], "learning_rate": rate}),
        "validation": ValidationConfig(every=max(1, sum(steps) // _VALIDATIONS), users=_validation_users(data)),
    }
    return config.model_copy(update=changes), epochs


def _validation_users(data: PreparedData) -> int:
    """As many as cost a few seconds: one target per user makes a noisy recall."""
    return int(np.clip(_VALIDATION_PAIRS // data.item_count, 50, 400))
