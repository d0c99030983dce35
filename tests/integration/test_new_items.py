"""Items that are added while a server answers: found at once, under all conditions, and scored like the others."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from support.live_bundle import ITEMS, item_ids, make_bundle, text_ids
from support.own_server import own_server

from nann.clients import RetrievalClient
from nann.errors import ServerError
from nann.python_backend.server.processes import child_processes
from nann.signature import ATTRIBUTES, CHANGED_ITEM_IDS, ITEM_LIGHT, ITEM_ROW

pytestmark = pytest.mark.triton


def add(control, ids, rows, light, texts=None):
    tensors = {
        CHANGED_ITEM_IDS: np.array([[str(each) for each in ids]], object),
        ITEM_ROW: np.asarray(rows, np.float32)[None],
        ITEM_LIGHT: np.asarray(light, np.float32)[None],
    }
    if texts is not None:
        tensors[ATTRIBUTES] = np.array([texts], object)
    return control.catalog("upsert_items", tensors)


def codes_mapped(server):
    """Device and inode of each mapping of light codes in the server's processes."""
    maps = "".join(Path(f"/proc/{pid}/maps").read_text() for pid in child_processes(server.pid))
    return [" ".join(line.split()[3:5]) for line in maps.splitlines() if line.endswith(".codes.npy")]


@pytest.mark.parametrize("texts", [False, True], ids=["numbers", "texts"])
def test_a_new_item_is_found_under_every_condition(tmp_path, texts):
    bundle = make_bundle(tmp_path / "bundle", item_rows=True, texts=texts)
    known, new, other = (text_ids(), "a new one", "b") if texts else (item_ids().tolist(), 5, 7)
    rows, light = bundle.item_rows.base, bundle.light_vectors
    with own_server(bundle.path, tmp_path, instances=2) as server, RetrievalClient(server.grpc_url) as client:
        history = known[100:105]
        before = client.retrieve(history)
        best = known.index(before.item_ids[0, 0])
        mapped = codes_mapped(server)
        assert len(mapped) == 2, "one for each instance"
        assert len(set(mapped)) == 1, "of one file, so in memory that they share"
        add(server.control, [new, other], 3 * rows[[best, 7]], 3 * light[[best, 7]], ['{"price": 0.5}', "{}"])
        for entry in ("layers", "seeds", "seeds", "layers"):  # both instances
            found = client.retrieve(history, entry=entry)
            assert found.item_ids[0, 0] == new
            assert found.scores[0, 0] == pytest.approx(3 * before.scores[0, 0], rel=1e-5)
            assert found.items_matching.tolist() == [ITEMS + 2]
        assert client.retrieve(history, allow_item_ids=[new, known[3]], top_k=3).item_ids[0].tolist()[0] == new
        assert client.retrieve(history, allow_item_ids=[new, known[3]]).items_matching.tolist() == [2]
        assert new not in client.retrieve(history, exclude_item_ids=[new]).item_ids
        assert new in client.retrieve([*history, new]).item_ids, "unknown in a history, which it joins"
        assert new not in client.retrieve([*history, new], exclude_history=True).item_ids
        assert client.retrieve(history, filter="price = 0.5").item_ids[0, 0] == new
        assert new not in client.retrieve(history, filter="price = 0.25").item_ids
        server.control.catalog("delete_items", {CHANGED_ITEM_IDS: np.array([[str(new)]], object)})
        assert new not in client.retrieve(history).item_ids
        assert client.retrieve(history).items_matching.tolist() == [ITEMS + 1]
        with pytest.raises(ServerError, match=r"row has shape \[1, 1, 3\]"):
            add(server.control, [new], [[1, 2, 3]], light[:1])


def test_an_item_is_in_the_next_answer_and_a_known_one_moves(tmp_path):
    bundle = make_bundle(tmp_path / "bundle", item_rows=True)
    rows, light, ids = bundle.item_rows.base, bundle.light_vectors, item_ids()
    with own_server(bundle.path, tmp_path, instances=2) as server, RetrievalClient(server.grpc_url) as client:
        history = ids[300:305].tolist()
        best = int(np.flatnonzero(ids == client.retrieve(history).item_ids[0, 0])[0])
        waits_s = []
        for number in range(1, 40):
            add(server.control, [number], (2 + number) * rows[[best]], (2 + number) * light[[best]])
            begun_s = time.monotonic()
            assert client.retrieve(history, entry="seeds").item_ids[0, 0] == number
            waits_s.append(time.monotonic() - begun_s)
        assert max(waits_s) < 1, "the first request after the acknowledgement has it"
        worst = int(ids[best + 1])
        add(server.control, [worst], 100 * rows[[best]], 100 * light[[best]])
        assert client.retrieve(history).item_ids[0, :2].tolist() == [worst, 39]
        assert client.retrieve(history).items_matching.tolist() == [ITEMS + 39]
        assert worst not in client.retrieve(history, exclude_item_ids=[worst]).item_ids
        assert worst not in client.retrieve([*history, worst], exclude_history=True).item_ids
        assert client.retrieve(history, allow_item_ids=[worst]).item_ids[0, :2].tolist() == [worst, -1]
