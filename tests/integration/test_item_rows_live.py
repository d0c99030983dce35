"""A bundle with item rows on a real server: the same answers as one with an item table, wherever rounds are scored."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from support import live_bundle
from support.own_server import ADMIN_KEY, own_server
from support.reference import OfflineEnsemble

from nann.bundle import ITEM_ROWS_FILE, Bundle
from nann.clients import RetrievalClient
from nann.errors import DeployError
from nann.python_backend.repository.deploy import deploy
from nann.python_backend.server.control import ModelControl

pytestmark = pytest.mark.triton


@pytest.fixture(scope="module")
def rows_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return live_bundle.make_bundle(tmp_path_factory.mktemp("rows") / "bundle", item_rows=True).path


def processes_that_map(file: Path) -> set[str]:
    """Names of the models whose Python process has mapped a file."""
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().split(b"\0")
            maps = (process / "maps").read_text()
        except OSError:
            continue
        if str(file.resolve()) in maps and command[0].endswith(b"triton_python_backend_stub"):
            found.add(command[1].decode().split("/")[-3])
    return found


@pytest.mark.parametrize("place", ["bls", "in_process"])
def test_answers_are_those_of_the_item_table(
    live_bundle_path: Path, rows_path: Path, tmp_path: Path, place: str
) -> None:
    table, rows = (OfflineEnsemble(Bundle.open(path)) for path in (live_bundle_path, rows_path))
    users = [live_bundle.item_ids()[start : start + 5].tolist() for start in range(10, 26)]
    with own_server(rows_path, tmp_path, scorer=place) as server, closing(RetrievalClient(server.grpc_url)) as client:
        found = client.retrieve(users)
        # All 4,000 items for each of 16 users: 4 MB of rows in a call.
        everything = client.retrieve(users, entry="all")
        mapped = processes_that_map(tmp_path / "repository" / "beam_retrieval" / "1" / ITEM_ROWS_FILE)
        if place == "bls":
            control = ModelControl(server.http_url, ADMIN_KEY)
            with pytest.raises(
                DeployError, match="the bundle has an item table in the scorer, and the current one item"
            ):
                deploy(live_bundle_path, tmp_path / "repository", control)
            other = live_bundle.make_bundle(tmp_path / "other", seed=2, item_rows=True)
            assert deploy(other.path, tmp_path / "repository", control).version == 2  # its answers were compared
            items, _, _ = OfflineEnsemble(other).retrieve(users[0])
            np.testing.assert_array_equal(client.retrieve(users[0]).item_ids[0], items)
    for offline in (table, rows):
        for row, ids in enumerate(users):
            items, scores, scored = offline.retrieve(ids)
            np.testing.assert_array_equal(found.item_ids[row], items)
            np.testing.assert_allclose(found.scores[row], scores, rtol=1e-5, atol=1e-5)
            assert found.items_scored[row] == scored
            best = offline.exhaustive(ids, live_bundle.item_ids().tolist(), 20)
            np.testing.assert_array_equal(everything.item_ids[row], best)
    assert mapped == {"beam_retrieval"}, "the rows are in the search's memory, not in the scorer's"
