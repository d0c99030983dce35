"""Items that change while a server answers: at once, for all instances, and for good."""

from __future__ import annotations

import re
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest
from support.background import Background
from support.cli_commands import nann, refused
from support.live_bundle import ITEMS, attributes, item_ids, make_bundle
from support.own_server import ADMIN_KEY, own_server
from support.reference import OfflineEnsemble
from support.waiting import wait_until

from nann.catalog.journal import journal_path
from nann.clients import RetrievalClient
from nann.errors import ServerError
from nann.python_backend.repository.answer_check import sample_users
from nann.python_backend.repository.deploy import deploy
from nann.python_backend.repository.install import install_bundle
from nann.signature import ATTRIBUTES, CHANGED_ITEM_IDS

pytestmark = pytest.mark.triton

ALL = item_ids()
KEY = "fedcba9876543210"


def delete(control, ids) -> dict:
    return control.catalog("delete_items", {CHANGED_ITEM_IDS: np.array([[str(each) for each in ids]], object)})


def change(control, ids, texts) -> dict:
    return control.catalog(
        "upsert_items",
        {CHANGED_ITEM_IDS: np.array([[str(each) for each in ids]], object), ATTRIBUTES: np.array([texts], object)},
    )


class Asking(Background):
    """Threads that search all the time; `answers` has for each answer when its request began, and its ids."""

    def __init__(self, url: str, threads: int = 3) -> None:
        self.answers: list[tuple[float, set[int]]] = []
        self._url = url
        super().__init__(threads)

    def __enter__(self) -> Asking:
        super().__enter__()
        wait_until(lambda: len(self.answers) > 5)
        return self

    def more(self, count: int) -> None:
        enough = len(self.answers) + count
        wait_until(lambda: len(self.answers) >= enough)

    def work(self, number: int) -> None:
        rng = np.random.default_rng(number)
        with RetrievalClient(self._url, timeout_s=30) as client:
            while not self.ended.is_set():
                history = ALL[rng.integers(10, 60, 5)].tolist()
                entry = ("layers", "seeds")[int(rng.integers(2))]
                begun = time.monotonic()
                found = client.retrieve(history, entry=entry).item_ids[0].tolist()
                self.answers.append((begun, set(found)))


@pytest.mark.parametrize("steps", ["separate", "one"])
def test_a_deleted_item_is_in_no_answer_to_a_later_request(live_bundle_path, tmp_path, steps):
    gone: list[tuple[float, set[int]]] = []
    with own_server(live_bundle_path, tmp_path, instances=2, steps=steps) as server, Asking(server.grpc_url) as asking:
        for _ in range(8):
            asking.more(30)
            often = set.union(*(found for _, found in asking.answers[-20:])) - {-1}
            ids = sorted(often - set().union(*(each for _, each in gone)))[:15]
            assert delete(server.control, ids)["removed"] == len(ids) > 0
            gone.append((time.monotonic(), set(ids)))
        asking.more(30)
        status = server.control.catalog("catalog_status")
        deleted = sum(len(ids) for _, ids in gone)
        assert (status["deleted"], status["items"]) == (deleted, ITEMS - deleted)
        with RetrievalClient(server.grpc_url, timeout_s=20) as client:
            assert client.retrieve(ALL[:5].tolist()).items_matching.tolist() == [ITEMS - deleted]
            history = client.retrieve(sorted(gone[0][1]))
            assert history.unknown_items.tolist() == [0], "deleted items are still a history"
    assert len(asking.answers) > 200
    assert any(found & gone[0][1] for begun, found in asking.answers if begun < gone[0][0])
    for acknowledged, ids in gone:
        assert [found & ids for begun, found in asking.answers if begun > acknowledged and found & ids] == []


def test_a_new_attribute_counts_for_the_next_request_to_each_process(live_bundle_path, tmp_path):
    with (
        own_server(live_bundle_path, tmp_path, instances=2, steps="one") as server,
        RetrievalClient(server.grpc_url, timeout_s=20) as client,
        ThreadPoolExecutor(8) as pool,  # enough at a time for both
    ):
        for count in range(1, 4):
            assert change(server.control, [ALL[100 + count]], ['{"department": "NEVER SEEN"}'])["replaced"] == 1
            asked = partial(client.retrieve, ALL[20:25].tolist(), filter='department = "NEVER SEEN"')
            answers = list(pool.map(lambda _, ask=asked: ask(), range(24)))
            assert {int(one.items_matching[0]) for one in answers} == {count}
            assert {*answers[0].item_ids[0].tolist()} == {-1, *ALL[101 : 101 + count].tolist()}


def test_changes_of_attributes_outlive_a_restart_and_a_deploy(live_bundle_path, tmp_path):
    def matching(server, text) -> int:
        with RetrievalClient(server.grpc_url, timeout_s=20) as client:
            return int(client.retrieve(ALL[20:25].tolist(), filter=text).items_matching[0])

    cheap = sum(price is not None and price < 1 for price in attributes()["price"])
    texts = ['{"price": 0.5, "department": "NEVER SEEN"}'] * 3
    with own_server(live_bundle_path, tmp_path) as server:
        assert matching(server, "price < 1") == cheap
        assert change(server.control, ALL[101:104], texts) == {"sequence": 1, "new": 0, "replaced": 3}
        assert matching(server, 'department = "NEVER SEEN"') == 3
        assert matching(server, "price < 1") == cheap + 3
        with pytest.raises(
            ServerError, match="item 1006 has an attribute 'colour'; expected some of department, brand"
        ):
            change(server.control, ALL[1:3], ['{"price": 3}', '{"colour": "red"}'])
        assert delete(server.control, ALL[101:102])["removed"] == 1
        second = make_bundle(tmp_path / "second", seed=3)
        # The deploy compares answers for its users; what they would get is deleted.
        offline = OfflineEnsemble(second)
        theirs = {item for user in sample_users(second) for item in offline.retrieve(user.tolist())[0].tolist()}
        assert delete(server.control, sorted(theirs - set(ALL[101:104])))["removed"] > 40
        deploy(second.path, server.options.repository, server.control)
        assert matching(server, 'department = "NEVER SEEN"') == 2
    with own_server(live_bundle_path, tmp_path) as server:
        assert matching(server, 'department = "NEVER SEEN"') == 2
        assert server.control.catalog("catalog_status")["sequence"] == 3
        metrics = server_metrics(server)
        assert metrics['nann_catalog_items{kind="deleted",model="beam_retrieval",version="1"}'] > 40
        assert metrics['nann_catalog_sequence{model="catalog",version="1"}'] == 3


def server_metrics(server) -> dict[str, float]:
    import urllib.request

    def read() -> dict[str, float]:
        with urllib.request.urlopen(f"http://{server.metrics_url}/metrics", timeout=20) as response:
            lines = re.findall(r"^(nann_catalog\w+\{.*\}) (.*)$", response.read().decode(), re.MULTILINE)
        return {name: float(value) for name, value in lines}

    wait_until(lambda: any(value for name, value in read().items() if "sequence" in name and 'catalog"' in name))
    time.sleep(1.5)  # the models send them once a second
    return read()


def test_a_damaged_journal_stops_the_start(live_bundle_path, tmp_path):
    repository = tmp_path / "repository"
    with own_server(live_bundle_path, tmp_path, admin_key=ADMIN_KEY) as server:
        for item in ALL[:3].tolist():
            delete(server.control, [item])
    path = journal_path(repository)
    data = bytearray(path.read_bytes())
    data[70] ^= 8
    path.write_bytes(data)
    install_bundle(live_bundle_path, repository)
    with (
        pytest.raises(ServerError, match=r"(?s)journal is damaged at byte 32; restore it from a backup"),
        own_server(live_bundle_path, tmp_path, admin_key=ADMIN_KEY),
    ):
        pass


def test_the_commands(live_bundle_path, tmp_path):
    key = tmp_path / "key"
    key.write_text(KEY)
    key.chmod(0o600)
    with own_server(live_bundle_path, tmp_path, admin_key=KEY) as server:
        at = ("--url", server.http_url, "--admin-key-file", key)
        rows = [f"{item},sale|new" for item in ALL[:998]]
        (tmp_path / "items.csv").write_text("\n".join(["id,tag", *rows]))
        one = f'{{"id": {ALL[-3]}, "tag": ["sale"]}}'
        added = nann("items", "add", tmp_path / "items.csv", "--item", one, *at, "--json")
        assert added.json == {"new": 0, "replaced": 999, "sequence": 1}, added
        (tmp_path / "items.csv").write_text("\n".join(["id,tag", f"{ALL[1]},x", f"{ALL[-1]},x", "7,x"]))
        words = refused("items", "add", tmp_path / "items.csv", *at)
        assert "item 7 is not in the corpus, and came without vectors; expected an item of the bundle" in words
        removed = nann("items", "remove", ALL[5], 3, *at, "--json")
        assert removed.json == {"removed": 1, "unknown": 1, "sequence": 2}, removed
        status = nann("items", "status", *at, "--json")
        assert (status.json["changed"], status.json["deleted"], status.json["items"]) == (998, 1, ITEMS - 1)
        assert "of bundle" in status.stdout
        assert "the admin key; pass the file that" in refused("items", "status", "--url", server.http_url)
