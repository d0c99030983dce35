"""Which engine the server of a model repository runs the scorer with, as `nann serve --engine` recorded it."""

from __future__ import annotations

from pathlib import Path

from nann.durable_files import write_json
from nann.errors import ConfigError

from ..recorded_setting import recorded_setting

AUTO, ONNXRUNTIME, NATIVE, OPENVINO = "auto", "onnxruntime", "native", "openvino"
ENGINES = (AUTO, ONNXRUNTIME, NATIVE, OPENVINO)
"""What may run the scorer; "auto" takes the fastest that keeps its best items (`choose.py`)."""
SETTING_FILE = ".engine.json"
"""In a model repository. Triton does not look at it."""


def recorded_engine(repository: Path) -> str | None:
    """The engine; None: the parameter `engine` in config.pbtxt says.

    Raises:
        ConfigError: if what is recorded can't be read.
    """
    engine = recorded_setting(
        repository / SETTING_FILE, "engine", str, "start the server with `nann serve --engine` again"
    )
    return None if engine is None else checked_engine(engine)


def checked_engine(engine: str) -> str:
    """The engine, if there is one of that name.

    Raises:
        ConfigError: if there is none.
    """
    if engine not in ENGINES:
        raise ConfigError(f"the scorer's engine is {engine!r}; expected {' or '.join(ENGINES)}")
    return engine


def record_engine(repository: Path, engine: str) -> None:
    """Records the engine for the models that are loaded from now on."""
    write_json(repository / SETTING_FILE, {"engine": engine})
