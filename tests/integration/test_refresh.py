"""`nann refresh` beside a server that answers, while its items change all the time."""

from __future__ import annotations

import time

import numpy as np
import pytest
from support.background import Background
from support.cli_commands import nann
from support.live_bundle import ITEMS, item_ids, make_bundle
from support.own_server import own_server

from nann.bundle import Bundle
from nann.catalog import LiveCorpus
from nann.catalog.journal import journal_path
from nann.clients import RetrievalClient
from nann.signature import CHANGED_ITEM_IDS, ITEM_LIGHT, ITEM_ROW, ITEM_VECTOR

pytestmark = pytest.mark.triton

ALL = item_ids()
KEY = "fedcba9876543210"


class Changing(Background):
    """A thread that adds items and deletes others, one batch after the other, and keeps what was acknowledged."""

    def __init__(self, control, bundle: Bundle) -> None:
        self.added: list[int] = []
        self.deleted: list[int] = []
        self.failed: list[Exception] = []
        self._control, self._bundle = control, bundle
        super().__init__()

    def add(self, item_id: int, like: int, times: float = 0.5) -> None:
        self._control.catalog(
            "upsert_items",
            {
                CHANGED_ITEM_IDS: np.array([[str(item_id)]], object),
                ITEM_ROW: times * self._bundle.item_rows.base[like][None, None],
                ITEM_LIGHT: times * self._bundle.light_vectors[like][None, None],
                ITEM_VECTOR: times * self._bundle.item_vectors[like][None, None],
            },
        )
        self.added.append(item_id)

    def work(self, _number: int) -> None:
        number = 0
        while not self.ended.is_set() and number < 900:
            number += 1
            try:
                self.add(5 + 3 * number, like=number)
                self._control.catalog("delete_items", {CHANGED_ITEM_IDS: np.array([[str(ALL[-number])]], object)})
                self.deleted.append(int(ALL[-number]))
            except Exception as error:
                self.failed.append(error)
                return
            time.sleep(0.01)


def test_no_change_is_lost_while_the_next_bundle_is_made_and_deployed(tmp_path, monkeypatch):
    monkeypatch.setenv("NANN_ADMIN_KEY", KEY)
    bundle = make_bundle(tmp_path / "bundle", item_rows=True)
    repository = tmp_path / "repository"
    with (
        own_server(bundle.path, tmp_path, instances=2, admin_key=KEY) as server,
        RetrievalClient(server.grpc_url) as client,
    ):
        first = Changing(server.control, bundle)
        first.add(1, like=100, times=1.5)
        history = ALL[:5].tolist()
        before = client.retrieve(history)
        with Changing(server.control, bundle) as changing:
            while len(changing.added) < 20:
                time.sleep(0.05)
            arguments = ("--bundle", bundle.path, "--repository", repository, "--url", server.http_url)
            made = nann("refresh", *arguments, "--deploy", "--json")
            assert made.code == 0, made.stderr
            assert "version 2 answers now instead of version 1" in made.stderr
            time.sleep(0.5)
        assert changing.failed == []
        assert len(changing.added) > made.json["added"] > 20, "some came after it"
        status = server.control.catalog("catalog_status")
        gone = set(changing.deleted)
        assert status["items"] == ITEMS + 1 + len(changing.added) - len(gone)
        assert status["contained_sequence"] == made.json["sequence"] < status["sequence"]
        refreshed = Bundle.open(bundle.path)
        place = refreshed.features.item_indices(np.array([1]))[0]
        np.testing.assert_array_equal(refreshed.item_vectors[place], np.float32(1.5) * bundle.item_vectors[100])
        live = LiveCorpus(refreshed, journal_path(repository))
        live.refresh()
        assert (live.index_of([1, *changing.added]) >= 0).all()
        assert (live.index_of(changing.deleted) < 0).all()
        assert 1 in client.retrieve([int(ALL[100])], entry="seeds").item_ids[0, :3], "a new item is found"
        answers = client.retrieve([[int(each)] for each in changing.deleted[:16]])
        assert not gone & set(answers.item_ids.ravel().tolist())
        assert (answers.unknown_items == 0).all(), "the user encoder knows deleted items"
        assert client.retrieve([1]).unknown_items.tolist() == [1], "and not the new ones"
        own = client.retrieve([int(ALL[100]), 1], exclude_history=True)
        assert not {int(ALL[100]), 1} & set(own.item_ids.ravel().tolist()), "also what the user encoder does not know"
        assert before.item_ids.shape == client.retrieve(history).item_ids.shape
        again = nann("refresh", *arguments)
        assert (again.code, "after change" in again.stderr) == (0, True)
