from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from nann.bundle import Bundle
from nann.training.config import ProfileConfig, TrainingConfig
from nann.training.data.custom_log import LogColumns, ProfileTable, read_log
from nann.training.data.prepare import prepare
from nann.training.data.prepared import PreparedData
from nann.training.data.protocol import Protocol

torch.set_num_threads(1)  # tensors of a few kilobytes: threads would only wait for each other

USERS, ITEMS, CATEGORIES = 120, 300, 12


def write_log(folder: Path) -> tuple[Path, Path]:
    """A log in which each user stays within two categories, and a profile file; both as CSV."""
    rng = np.random.default_rng(7)
    category_of = rng.integers(CATEGORIES, size=ITEMS)
    rows = []
    for user in range(USERS):
        liked = np.flatnonzero(np.isin(category_of, rng.choice(CATEGORIES, 2, replace=False)))
        for time, item in enumerate(rng.choice(liked, size=20)):
            rows.append((user, int(item) + 1, time, int(category_of[item])))
    log, profile = folder / "log.csv", folder / "profile.csv"
    pl.DataFrame(rows, schema=["user", "item", "time", "category"], orient="row").write_csv(log)
    pl.DataFrame(
        {"user": range(USERS), "age": [user % 5 for user in range(USERS)], "sex": ["f", "m"] * (USERS // 2)}
    ).write_csv(profile)
    return log, profile


@pytest.fixture(scope="session")
def data_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("log")
    log, profile = write_log(folder)
    columns = LogColumns("user", "item", "time", category="category")
    table = ProfileTable(profile, "user", ("age", "sex"))
    prepare(
        lambda scratch: read_log([log], columns, scratch, profile=table),
        folder / "data",
        Protocol(validation_users=10, test_users=20),
    )
    return folder / "data"


@pytest.fixture(scope="session")
def data(data_folder: Path) -> PreparedData:
    return PreparedData.load(data_folder)


@pytest.fixture(scope="session")
def exported_bundle(data: PreparedData, config: TrainingConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of a barely trained scorer, with ONNX files. Copy it before changing it."""
    from nann.training.checkpoint import Checkpoint
    from nann.training.search.pipeline import export_checkpoint, index_checkpoint
    from nann.training.train import train

    folder = tmp_path_factory.mktemp("exported_bundle")
    model = config.model.model_copy(update={"profile": ProfileConfig()})
    checkpoint = Checkpoint.load(train(data, config.model_copy(update={"model": model}), folder / "train").checkpoint)
    bundle = index_checkpoint(checkpoint, data, folder / "bundle", threads=1)
    export_checkpoint(checkpoint, data, bundle)
    return bundle.path


@pytest.fixture(scope="session")
def half_bundle(exported_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with the scorer in half precision and a planned grid."""
    from nann.training.export.half_precision import export_half

    path = Path(shutil.copytree(exported_bundle, tmp_path_factory.mktemp("half") / "bundle"))
    export_half(Bundle.open(path))
    return path


@pytest.fixture(scope="session")
def config() -> TrainingConfig:
    return TrainingConfig.model_validate(
        {
            "model": {
                "sequence_length": 8,
                "embedding_dim": 8,
                "item_layers": [16, 16],
                "attention_dim": 8,
                "key_hidden": 8,
                "query_hidden": 8,
                "score_layers": [16, 8],
            },
            "loss": {"negatives": 15, "nce": "ranking", "auxiliary": {"candidates": 4}},
            "optimization": {"steps": 30, "batch_size": 32, "warmup_steps": 5},
            "index": {"m": 8, "entry_layer": 1},
            "search": {"top_k": 10, "ef": [10, 40], "rounds": [1, 3]},
        }
    )
