from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl
import pytest
import torch
from support.tiny_log import CONFIG, USERS, write_log

from nann.bundle import Bundle
from nann.training.config import ProfileConfig, TrainingConfig
from nann.training.data.canonical_rows import LogColumns
from nann.training.data.custom_log import read_log
from nann.training.data.log_source import ProfileTable
from nann.training.data.prepare import prepare
from nann.training.data.prepared import PreparedData
from nann.training.data.protocol import Protocol

if TYPE_CHECKING:
    from nann.training.checkpoint import Checkpoint


def prepared(folder: Path, users: int, protocol: Protocol) -> Path:
    log, profile = write_log(folder / "log.csv", users=users), folder / "profile.csv"
    ages, sexes = [user % 5 for user in range(users)], ["f", "m"] * (users // 2)
    pl.DataFrame({"user": range(users), "age": ages, "sex": sexes}).write_csv(profile)
    columns = LogColumns("user", "item", "time", category="category")
    table = ProfileTable(profile, "user", ("age", "sex"))
    prepare(lambda scratch: read_log([log], columns, scratch, profile=table), folder / "data", protocol)
    return folder / "data"


@pytest.fixture(scope="session")
def data_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepared(tmp_path_factory.mktemp("log"), USERS, Protocol(validation_users=10, test_users=20))


@pytest.fixture(scope="session")
def data(data_folder: Path) -> PreparedData:
    return PreparedData.load(data_folder)


@pytest.fixture(scope="session")
def leave_one_out(tmp_path_factory: pytest.TempPathFactory) -> PreparedData:
    """The same kind of log, where the answer is the last item and never one of the history."""
    protocol = Protocol(kind="leave-one-out", min_behaviors=3, exclude_history=True, validation_users=10, test_users=20)
    return PreparedData.load(prepared(tmp_path_factory.mktemp("leave_one_out"), USERS, protocol))


@pytest.fixture(scope="session")
def many_users(tmp_path_factory: pytest.TempPathFactory) -> PreparedData:
    """The same kind of log with enough users to tell what was learned from chance."""
    protocol = Protocol(validation_users=100, test_users=1)
    return PreparedData.load(prepared(tmp_path_factory.mktemp("many_users"), 400, protocol))


@pytest.fixture(scope="session")
def trained(data: PreparedData, config: TrainingConfig, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """A barely trained scorer."""
    from nann.training.checkpoint import Checkpoint
    from nann.training.train import train

    model = config.model.model_copy(update={"profile": ProfileConfig()})
    run = train(data, config.model_copy(update={"model": model}), tmp_path_factory.mktemp("trained"))
    return Checkpoint.load(run.checkpoint)


@pytest.fixture(scope="session")
def exported_bundle(data: PreparedData, trained: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its bundle, with ONNX files. Copy it before changing it."""
    from nann.training.search.pipeline import export_checkpoint, index_checkpoint

    bundle = index_checkpoint(trained, data, tmp_path_factory.mktemp("exported") / "bundle", threads=1)
    export_checkpoint(trained, data, bundle)
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
    return TrainingConfig.model_validate(CONFIG)


@pytest.fixture
def request_tensors(data: PreparedData) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Histories, profiles and candidates of four users."""
    generator = torch.Generator().manual_seed(4)
    behaviors = torch.randint(data.item_count, (4, 8), generator=generator, dtype=torch.int32)
    behaviors[1, :5] = -1
    behaviors[2, :7] = -1
    behaviors[3] = -1  # a user without history
    profiles = torch.tensor([[0, 0], [1, 2], [5, 1], [3, 0]], dtype=torch.int32)
    candidates = torch.randint(data.item_count, (4, 6), generator=generator, dtype=torch.int32)
    candidates[0, :3] = behaviors[0, [0, 5, 7]]
    return behaviors, profiles, candidates
