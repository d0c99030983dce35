"""Memory of a further instance, measured as the benchmark does."""

from __future__ import annotations

from pathlib import Path

import live_bundle
import pytest

from perf.index_load import measure_memory

pytestmark = pytest.mark.triton


def test_a_further_instance_takes_memory_and_not_much(live_bundle_path: Path, tmp_path: Path) -> None:
    users = [live_bundle.item_ids()[start : start + 5].tolist() for start in range(10, 20)]
    memory = measure_memory(live_bundle_path, users, tmp_path, (1, 2), lambda line: None)
    assert memory["total_mb"].keys() == {"1", "2"}
    assert 5 < memory["further_instance_mb"] < 100
