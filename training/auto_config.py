"""`nann train --config auto`: a configuration that fits a prepared data set, with the reasons for it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

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
"""From this share of repeated targets on, the score knows what a user had before. On the logs with repeats that were
tried, heads found nothing more (docs/training.md), so there are none."""
REPEATS_DROPOUT = 0.3
RARE, RARE_SHARE, RARE_DISCOUNT = 10, 0.2, 0.2
"""Where users come back to items, and at least this share of all targets are items that occur fewer than 10 times, the
score leaves out a part of the popularity: without that, rare items are found less often than by ALS."""
NEW, ID_DROPOUT = 0.05, 0.1
"""From this share of targets on that are their item's only one, new items come often: Good and Turing's estimate of the
share that items not seen yet will have. Where it was lower, new items had no places in a list (docs/training.md)."""
PASSES, TARGETS = 12, 5_000_000
"""Passes of the two-sided stage, fewer if they would exceed so many targets; at least one."""
HEAD_PASSES, HEAD_TARGETS = 4, 500_000
"""Passes of the stage with heads, fewer if they would exceed so many targets."""
SMALL_BATCH, LARGE_BATCH, MANY_ITEMS = 1024, 2048, 30_000
"""Every step updates all items: with many of them, fewer and larger steps take less time."""
HEAD_BATCH = 512
RATE, LOWEST_HEAD_RATE, HEAD_RATE = 2e-3, 2e-4, 1e-3
"""Learning rates of the two stages. In less than all passes a high rate of the second forgets more of the first than it
adds."""
_SAMPLE = 20_000
_VALIDATIONS, _VALIDATION_PAIRS = 10, 5_000_000


@dataclass(frozen=True)
class Choice:
    """A configuration and, line by line, what in the data set led to it."""

    config: TrainingConfig
    reasons: tuple[str, ...]


def auto_config(data: PreparedData) -> Choice:
    """The `kernel` scorer, sized for the data set."""
    first, end, users = data.training_groups()
    repeated, length = _histories(data, first, users)
    repeats = repeated >= REPEATS and not data.excludes_history
    length = int(np.clip(length, LENGTH, LONG)) if repeats else LENGTH
    once = float((data.train_counts == 1).sum() / max(1, data.train_counts.sum()))
    model = ModelConfig(
        architecture="kernel",
        sequence_length=length,
        item_layers=(64,),
        kernel=KernelConfig(heads=0, repeats=True, dropout=REPEATS_DROPOUT) if repeats else KernelConfig(),
        profile=ProfileConfig() if data.profile_fields else None,
        id_dropout=ID_DROPOUT if once >= NEW and data.describes_items else 0.0,
    )
    rare = float(data.train_counts[data.train_counts < RARE].sum() / max(1, data.train_counts.sum()))
    discount = RARE_DISCOUNT if repeats and rare >= RARE_SHARE else 0.0
    loss = LossConfig(
        nce="ranking",
        negatives=HEAD_BATCH,
        own_items="masked" if data.excludes_history else "kept",
        popularity_discount=discount,
        auxiliary=AuxiliaryConfig(reading="none"),
    )
    config = TrainingConfig(model=model, loss=loss)
    targets = int((end - first).sum())
    config, schedule = _scheduled(config, data, targets)
    validation = ValidationConfig(every=max(1, config.steps // _VALIDATIONS), users=_validation_users(data))
    return Choice(
        config.model_copy(update={"validation": validation}),
        (
            f"{targets:,} targets: {schedule}",
            f"{repeated:.0%} of the targets repeat an earlier item of their user"
            + (f": the score knows repeats, and a request ships {length} behaviours" if repeats else ""),
            f"{rare:.0%} of the targets are items that occur fewer than {RARE} times"
            + (f": the score leaves out {discount:.0%} of the log popularity" if discount else ""),
            f"{once:.1%} of the targets are the only one of their item"
            + (
                f": new items come often, and each step takes the ids from {ID_DROPOUT:.0%}" if model.id_dropout else ""
            ),
            "items are described by their ids"
            + (", categories" if data.category_count > 1 else "")
            + (f", {len(data.item_attributes.fields)} attributes" if data.item_attributes is not None else ""),
        ),
    )


def _histories(data: PreparedData, first: npt.NDArray[np.int64], users: npt.NDArray[np.int32]) -> tuple[float, float]:
    """Of a sample of the training groups: the share that begins with an item of the history, and how long most are."""
    chosen = np.random.default_rng(0).choice(len(first), min(_SAMPLE, len(first)), replace=False)
    starts, first = data.user_first[users[chosen]], first[chosen]
    seen = data.contexts(starts, first, LONG)
    repeated = (seen == data.behavior_items[first, None]).any(axis=1)
    return float(repeated.mean()), float(np.quantile(first - starts, 0.75))


def _scheduled(config: TrainingConfig, data: PreparedData, targets: int) -> tuple[TrainingConfig, str]:
    """The configuration with the steps that so many targets need, and these in words."""
    size = LARGE_BATCH if data.item_count > MANY_ITEMS else SMALL_BATCH
    passes = min(PASSES, max(1.0, TARGETS / targets))
    start = StartConfig(steps=_steps(config, data, size, passes), batch_size=size, negatives=size, learning_rate=RATE)
    words = f"{passes:.1f} passes in {start.steps:,} steps"
    if not config.model.kernel.heads:
        return _one_stage(config, start), words
    head_passes = min(HEAD_PASSES, HEAD_TARGETS / targets)
    config = _two_stages(config, start, data, head_passes)
    last = f"{head_passes:.1f} in {config.optimization.steps:,} steps of the whole scorer"
    return config, f"{words} of the two-sided form, then {last}"


def _one_stage(config: TrainingConfig, only: StartConfig) -> TrainingConfig:
    """The configuration without heads: everything trains in the steps that would otherwise be the start."""
    loss = config.loss.model_copy(update={"negatives": only.negatives})
    optimization = _optimization(only.steps, only.batch_size, only.learning_rate)
    return config.model_copy(update={"loss": loss, "optimization": optimization})


def _two_stages(config: TrainingConfig, start: StartConfig, data: PreparedData, passes: float) -> TrainingConfig:
    """The configuration with a two-sided start, and so many passes with heads after it."""
    rate = max(LOWEST_HEAD_RATE, HEAD_RATE * passes / HEAD_PASSES)
    optimization = _optimization(_steps(config, data, HEAD_BATCH, passes), HEAD_BATCH, rate)
    return config.model_copy(update={"start": start, "optimization": optimization})


def _optimization(steps: int, batch_size: int, rate: float) -> OptimizationConfig:
    return OptimizationConfig(
        steps=steps, batch_size=batch_size, learning_rate=rate, final_learning_rate_ratio=0.05, adam_beta2=0.98
    )


def _steps(config: TrainingConfig, data: PreparedData, batch_size: int, passes: float) -> int:
    return max(1, round(passes * RowSampler(data, config, batch_size, negatives=batch_size).steps_per_epoch))


def _validation_users(data: PreparedData) -> int:
    """As many as cost a few seconds: one target per user makes a noisy recall."""
    return int(np.clip(_VALIDATION_PAIRS // data.item_count, 50, 400))
