"""Memory of an additional instance, measured as in the benchmark."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from support import live_bundle

from nann.clients import RetrievalClient
from nann.perf.servers.process_memory import model_pss_mb
from nann.perf.servers.serving import Deployment, install, serving
from nann.signature import BEAM_RETRIEVAL

pytestmark = pytest.mark.triton


def _search_mb(bundle: Path, repository: Path, instances: int) -> float:
    users = [live_bundle.item_ids()[start : start + 5].tolist() for start in range(10, 30)]
    with (
        serving(install(bundle, repository, Deployment(instances))) as server,
        closing(RetrievalClient(server.grpc_url)) as client,
        ThreadPoolExecutor(8) as pool,  # enough at a time for every instance
    ):
        list(pool.map(client.retrieve, users))
        assert server.pid is not None
        return model_pss_mb(server.pid)[BEAM_RETRIEVAL.name]


def test_a_further_instance_takes_memory_and_not_much(live_bundle_path: Path, tmp_path: Path) -> None:
    one, two = (_search_mb(live_bundle_path, tmp_path / str(count), count) for count in (1, 2))
    assert 5 < two - one < 100
