"""Users by id: a live server beside a store of histories, on good and on bad days."""

from __future__ import annotations

import json
import time
import urllib.request

import numpy as np
import pytest
from support.background import Background
from support.cli_commands import nann
from support.live_bundle import item_ids
from support.own_server import edited, own_server
from support.redis_server import running_redis
from support.serve_process import serving
from support.stored_users import HISTORIES, events, write_store
from support.waiting import wait_until

from nann.clients import RetrievalClient
from nann.errors import NannError, RequestError
from nann.python_backend.histories.opening import open_histories
from nann.python_backend.repository.install import install_bundle
from nann.signature import STATUS_COMPLETE, STATUS_NO_HISTORY

pytestmark = pytest.mark.triton

IDS = item_ids()


def same(one, other) -> bool:
    return np.array_equal(one.item_ids, other.item_ids) and np.array_equal(one.scores, other.scores)


def test_the_answer_is_that_to_the_whole_history(client):
    by_id = client.retrieve(user_id=17)
    assert same(by_id, client.retrieve(HISTORIES["17"]))
    assert (by_id.status.tolist(), by_id.stored_items.tolist()) == ([STATUS_COMPLETE], [12])
    session = IDS[[300, 301]].tolist()
    both = client.retrieve(session, user_id="17", exclude_history=True)
    assert same(both, client.retrieve(HISTORIES["17"] + session, exclude_history=True))
    assert both.stored_items.tolist() == [10]
    assert not set(both.item_ids.ravel().tolist()) & {*HISTORIES["17"], *session}
    several = client.retrieve(user_id=["17", "u-1", "none", "nobody", None] * 4, top_k=7)
    assert several.stored_items.tolist() == [12, 2, 0, 0, 0] * 4
    assert several.unknown_items.tolist() == [0, 1, 0, 0, 0] * 4
    histories = [HISTORIES["17"], HISTORIES["u-1"], [], [], []]
    assert same(several, client.retrieve(histories * 4, top_k=7))
    assert client.retrieve(HISTORIES["17"]).stored_items.tolist() == [0]


def test_a_request_without_anything_is_refused_and_so_is_a_strange_user(server, client):
    def ask(*tensors):
        body = json.dumps({"inputs": tensors}).encode()
        request = urllib.request.Request(f"http://{server.http_url}/v2/models/nann/infer", body)
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(request, timeout=30)
        return caught.value.code, caught.value.read().decode()

    lists = {"name": "exclude_item_ids", "datatype": "INT64", "shape": [1, 1], "data": [1]}
    assert ask(lists)[0] == 400
    assert "neither behavior_item_ids nor user_id came; expected one of them, or both" in ask(lists)[1]
    assert ask({"name": "user_id", "datatype": "INT64", "shape": [1, 1], "data": [17]})[0] == 400
    assert ask()[0] in (400, 500)
    with pytest.raises(RequestError, match="user_id has 300 bytes; expected at most 256"):
        client.retrieve(user_id="x" * 300)
    assert same(client.retrieve(user_id=17), client.retrieve(HISTORIES["17"]))


def test_the_store_is_an_option_of_serve_that_a_restart_keeps(live_bundle_path, tmp_path, monkeypatch):
    store = write_store(tmp_path / "histories")

    def asked(serve) -> dict:
        ended = nann("query", "--url", serve.grpc_url, "--user", "17", "--exclude-history", "--json")
        assert ended.code == 0, ended.stderr
        return ended.json["users"][0]

    with serving(live_bundle_path, tmp_path, "--histories", str(store)) as serve:
        first = asked(serve)
        assert (first["stored_items"], first["status"]) == (12, "complete")
        assert not {item["item_id"] for item in first["items"]} & set(HISTORIES["17"])
        assert f"users    {store}" in serve.words
    with serving(live_bundle_path, tmp_path) as serve:
        assert asked(serve) == first
    with serving(live_bundle_path, tmp_path, "--histories", "none") as serve:
        ended = nann("query", "--url", serve.grpc_url, "--user", "17")
        assert "this server has no store of histories; send behavior_item_ids, or start" in ended.stderr
    refused = nann("serve", "--bundle", live_bundle_path, "--repository", tmp_path / "other", "--histories", tmp_path)
    assert (refused.code, "is no store of histories" in refused.stderr) == (2, True)
    monkeypatch.setenv("NANN_HISTORIES", str(tmp_path))
    refused = nann("serve", "--bundle", live_bundle_path, "--repository", tmp_path / "other")
    assert (refused.code, "is no store of histories" in refused.stderr) == (2, True)


class Asking(Background):
    """A thread that asks for a user again and again."""

    def __init__(self, url: str) -> None:
        self.statuses: list[int] = []
        self.failures: list[NannError] = []
        self.slowest_ms = 0.0
        self._url = url
        super().__init__()

    def more(self, status: int) -> None:
        """Waits for ten answers in a row with this status."""
        start = len(self.statuses)
        wait_until(
            lambda: len(self.statuses) - start >= 10 and set(self.statuses[-10:]) == {status},
            lambda: (self.statuses[-20:], self.failures),
        )

    def work(self, number: int) -> None:
        with RetrievalClient(self._url, timeout_s=30) as client:
            while not self.ended.is_set():
                try:
                    result = client.retrieve(IDS[[70, 71]].tolist(), user_id="17")
                    self.statuses.append(int(result.status[0]))
                    assert (result.stored_items[0] == -1) == (result.status[0] == STATUS_NO_HISTORY)
                except NannError as error:
                    self.failures.append(error)
                time.sleep(0.002)


def test_redis_goes_and_comes_back_under_load(live_bundle_path, tmp_path):
    repository = tmp_path / "repository"
    install_bundle(live_bundle_path, repository)
    with edited(
        repository / "feature_transform" / "config.pbtxt", history_timeout_ms=300
    ):  # a busy machine is no fault
        pass
    with running_redis(tmp_path / "redis") as redis:
        (writer := open_histories(redis.url, 5.0)).append(events())
        writer.close()

        def metric(name: str) -> float:
            with urllib.request.urlopen(f"http://{server.metrics_url}/metrics", timeout=30) as answer:
                lines = answer.read().decode().splitlines()
            return sum(float(line.split()[-1]) for line in lines if line.startswith(name))

        with (
            own_server(live_bundle_path, tmp_path, histories=redis.url) as server,
            RetrievalClient(server.grpc_url, timeout_s=30) as client,
        ):
            session = IDS[[70, 71]].tolist()
            whole, alone = client.retrieve(HISTORIES["17"] + session), client.retrieve(session)
            assert same(client.retrieve(session, user_id=17), whole)
            with Asking(server.grpc_url) as one, Asking(server.grpc_url) as two:
                one.more(STATUS_COMPLETE)
                redis.kill()
                for each in (one, two):
                    each.more(STATUS_NO_HISTORY)
                assert same(client.retrieve(session, user_id=17), alone)
                wait_until(lambda: metric("nann_history_breaker_open") == 1)
                redis.start()
                for each in (one, two):
                    each.more(STATUS_COMPLETE)
            assert one.failures + two.failures == []
            assert same(client.retrieve(session, user_id=17), whole)
            wait_until(lambda: metric("nann_history_breaker_open") == 0)
            assert metric('nann_history_reads_total{model="feature_transform",outcome="failed"') >= 3
            assert metric('nann_history_reads_total{model="feature_transform",outcome="skipped"') > 0
    assert "the store of histories fails" in (tmp_path / "log").read_text()
