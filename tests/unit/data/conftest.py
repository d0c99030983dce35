from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nann.training.data.canonical_rows import LogColumns
from nann.training.data.custom_log import read_log
from nann.training.data.prepare import prepare
from nann.training.data.prepared import PreparedData
from nann.training.data.protocol import Protocol

PrepareCsv = Callable[..., PreparedData]


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, str | bytes], Path]:
    """Writes a file of the test's own."""

    def write_file(name: str, content: str | bytes) -> Path:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write_file


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    folder = tmp_path / "scratch"
    folder.mkdir()
    return folder


@pytest.fixture
def prepare_csv(tmp_path: Path) -> PrepareCsv:
    """Prepares a CSV text (header: user,item,time and perhaps category, basket) and loads the result."""

    def run(text: str, protocol: Protocol, **options: Any) -> PreparedData:
        path = tmp_path / "events.csv"
        path.write_text(text, encoding="utf-8")
        names = text.split("\n", 1)[0].split(",")
        optional = {name: name if name in names else None for name in ("category", "basket")}
        prepare(
            lambda scratch: read_log([path], LogColumns(**optional), scratch, **options), tmp_path / "out", protocol
        )
        return PreparedData.load(tmp_path / "out")

    return run
