from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from support.tiny_log import CONFIG, write_log

from nann.training.data.canonical_rows import LogColumns
from nann.training.data.custom_log import read_log
from nann.training.data.prepare import prepare
from nann.training.data.prepared import PreparedData
from nann.training.data.protocol import Protocol
from nann.training.studies.runs import Runs
from nann.training.studies.settings import StudySettings, study_settings

_CONFIG = {
    **CONFIG,
    "loss": {"negatives": 15, "nce": "ranking", "auxiliary": {"candidates": 4, "epsilon": 0.01}},
    "optimization": {"steps": 40, "batch_size": 32, "warmup_steps": 2},
    "search": {"top_k": 10, "ef": [10, 20], "rounds": [1, 2]},
}


@pytest.fixture(scope="session")
def study_data_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study_log")
    log = write_log(folder / "log.csv")
    columns = LogColumns("user", "item", "time", category="category")
    prepare(
        lambda scratch: read_log([log], columns, scratch),
        folder / "data",
        Protocol(validation_users=10, test_users=30),
    )
    return folder / "data"


@pytest.fixture(scope="session")
def study_data(study_data_folder: Path) -> PreparedData:
    return PreparedData.load(study_data_folder)


@pytest.fixture(scope="session")
def study_config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("study_config") / "tiny.yaml"
    path.write_text(yaml.safe_dump(_CONFIG), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def study_setup(study_config: Path) -> StudySettings:
    """Two seeds, and sweeps that fit 300 items."""
    return replace(
        study_settings("quick", config=str(study_config), seeds=2),
        users=30,
        beam_ef=((10, 10), (10, 40)),
        beam_rounds=((1, 1), (1, 3)),
        best_first_ef=(10, 40),
        tuned_coverages=(0.5, 0.8),
        ground_rounds=4,
        epsilons=(0.1,),
        top_ks=(5, 10, 20),
        budgets=(5, 20, 60),
        histories=(4, 8),
        growth_items=(300, 600),
        growth_users=(10, 20),
        seeded_coverages=(0.8, 0.95),
        seeded_max_share=1.0,
        seeded_users=10,
        seeded_items=(300,),
    )


@pytest.fixture(scope="session")
def study_runs(study_data: PreparedData, study_setup: StudySettings, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """Shared by the tests that only read from it."""
    return Runs(study_data, tmp_path_factory.mktemp("experiments"), study_setup)
