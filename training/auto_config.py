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
START_TARGETS, MAIN_TARGETS = 4_000_000, 800_000
"""More passes over the data than these targets need are left out; one pass is always made."""
_SAMPLE = 100_000


@dataclass(frozen=True)
class Choice:
    """A configuration and, line by line, what in the data set led to it."""

    config: TrainingConfig
    reasons: tuple[str, ...]


def auto_config(data: PreparedData, seed: int = 1) -> Choice:
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
        batch_size=512, learning_rate=5e-4, final_learning_rate_ratio=0.05, adam_beta2=0.98, steps=1
    )
    config = TrainingConfig(seed=seed, model=model, loss=loss, start=StartConfig(), optimization=main)
    config = _with_steps(config, data)
    start = config.start
    assert start is not None
    targets = data.training_target_count
    return Choice(
        config,
        (
            f"{targets:,} targets: {start.steps:,} steps of the two-sided form, then {config.optimization.steps:,} of "
            "the scorer",
            f"{repeated:.0%} of the targets repeat an earlier item of their user"
            + (", which are left out of the answers" if data.excludes_history else "")
            + (f": the score knows repeats, and a request ships {length} behaviours" if repeats else ""),
            "items are described by their ids"
            + (", categories" if data.category_count > 1 else "")
            + (f" and {len(data.item_attributes.fields)} attributes" if data.item_attributes is not None else ""),
        ),
    )
