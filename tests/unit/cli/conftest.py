from __future__ import annotations

import pytest
import yaml
from support.cli_commands import CONFIG, Pipeline, nann
from support.tiny_log import write_log


@pytest.fixture(scope="session")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    folder = tmp_path_factory.mktemp("pipeline")
    write_log(folder / "log.csv", ("uid", "sku", "at", "genre"))
    made = Pipeline(folder, {})
    made.config.write_text(yaml.safe_dump(CONFIG), encoding="utf-8")
    source = ("--data", made.data, "--checkpoint", made.checkpoint)
    columns = ("--user", "uid", "--item", "sku", "--time", "at", "--category", "genre")
    users = ("--validation-users", 10, "--test-users", 20)
    commands = {
        "prepare": ("log", folder / "log.csv", *columns, *users, "--name", "tiny", "--out", made.data),
        "train": ("--data", made.data, "--config", made.config, "--out", folder / "train"),
        "index": (*source, "--out", made.bundle, "--threads", 1),
        "export": (*source, "--bundle", made.bundle),
        "evaluate": ("--data", made.data, "--bundle", made.bundle),
    }
    for command, arguments in commands.items():
        made.ended[command] = nann(command, *arguments, "--json")
        assert made.ended[command].code == 0, made.ended[command]
    return made
