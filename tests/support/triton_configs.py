"""config.pbtxt files, parsed as Triton parses them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from nann.signature import CATALOG, MODELS

SPECS = {spec.name: spec for spec in (*MODELS, CATALOG)}
"""Of all models, by name."""


def parse(path: Path) -> Any:
    """The configuration, a `ModelConfig`."""
    return text_format.Parse(path.read_text(), model_config_pb2.ModelConfig())


def tensors(entries: Iterable[Any]) -> list[tuple[str, str, tuple[int, ...]]]:
    """Name, data type and dimensions of inputs or outputs."""
    return [(e.name, model_config_pb2.DataType.Name(e.data_type), tuple(e.dims)) for e in entries]
