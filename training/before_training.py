"""What is known before the first step: whether a run is there already, and whether later steps will refuse the data."""

from __future__ import annotations

import shutil
from pathlib import Path

from nann.errors import ConfigError, DataError

from .checkpoint import BEST_FILE, CHECKPOINT_FILE, Checkpoint
from .config import TrainingConfig
from .data.prepared import PreparedData
from .run_log import TENSORBOARD_FOLDER


def check_before_training(data: PreparedData, config: TrainingConfig) -> None:
    """Refuses a corpus that can't be trained on, or that `nann index` would refuse after the training.

    Raises:
        DataError: if the data set has a single item: no other item can be a negative.
        ConfigError: if it has fewer items than `search.top_k`, or id dropout would leave nothing of an item.
    """
    if data.item_count < 2:
        raise DataError(
            f"the data set has {data.item_count} item; expected at least 2: there is nothing to choose from"
        )
    if data.item_count < config.search.top_k:
        raise ConfigError(
            f"the data set has {data.item_count:,} items and search.top_k is {config.search.top_k:,}, more than there "
            "are: lower search.top_k and search.ef in the configuration"
        )
    if config.model.id_dropout and not data.describes_items:
        raise ConfigError(
            f"model.id_dropout is {config.model.id_dropout:g}, and nothing but ids describes the data set's items: "
            "prepare it with categories or attributes (`nann prepare log --category`, `nann prepare log --items`), or "
            "set model.id_dropout to 0"
        )


def check_run(out: Path, *, resume: bool, overwrite: bool) -> None:
    """Refuses to begin where a run is, unless told to.

    Raises:
        ConfigError: if `out` has a checkpoint and nothing says what to do with it, or both is said.
    """
    path = out / CHECKPOINT_FILE
    if resume and overwrite:
        raise ConfigError("both --resume and --overwrite are given; expected one: go on with the run, or begin again")
    if path.is_file() and not (resume or overwrite):
        raise ConfigError(
            f"{path} is of an earlier run; go on with it (--resume), replace it (--overwrite), or choose another --out"
        )


def remove_run(out: Path) -> None:
    """Removes what an earlier run wrote: nothing of it can be taken for the new run's."""
    for name in (CHECKPOINT_FILE, BEST_FILE):
        (out / name).unlink(missing_ok=True)
    shutil.rmtree(out / TENSORBOARD_FOLDER, ignore_errors=True)


def check_resumed(checkpoint: Checkpoint, config: TrainingConfig, data: PreparedData, path: Path) -> None:
    """Refuses to go on with other settings or data than before.

    Raises:
        ConfigError: naming each setting that weights depend on and that differs.
        DataError: if the data set is another one.
    """
    if changed := checkpoint.config.differences(config):
        each = "; ".join(f"{key} was {old!r} and is {new!r}" for key, (old, new) in changed.items())
        raise ConfigError(
            f"{path} was made with another configuration: {each}; give the same one to resume, or train from the start"
        )
    checkpoint.check_trained_on(data)
