"""Servers with repositories of their own that agree on their items through a Redis stream."""

from __future__ import annotations

import re
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from support.cli_commands import nann, refused
from support.live_bundle import ITEMS, item_ids
from support.own_server import own_server
from support.redis_server import running_redis
from support.waiting import wait_until

from nann.clients import RetrievalClient
from nann.errors import ServerError
from nann.python_backend.server.processes import child_processes
from nann.signature import CHANGED_ITEM_IDS

pytestmark = pytest.mark.triton

ALL = item_ids()
HISTORY = ALL[50:55].tolist()
PASSWORD = "hush-hush-hush"


@pytest.fixture
def redis(tmp_path, monkeypatch):
    monkeypatch.setenv("NANN_REDIS_PASSWORD", PASSWORD)
    with running_redis(tmp_path / "redis", "--requirepass", PASSWORD) as server:
        yield server


def delete(server, ids) -> dict:
    tensors = {CHANGED_ITEM_IDS: np.array([[str(each) for each in ids]], object)}
    return server.control.catalog("delete_items", tensors)


def matching(client) -> int:
    return int(client.retrieve(HISTORY).items_matching[0])


def metric(server, name: str) -> float:
    with urllib.request.urlopen(f"http://{server.metrics_url}/metrics", timeout=20) as response:
        found = re.findall(rf"^{name}\{{.*\}} (.*)$", response.read().decode(), re.MULTILINE)
    return float(found[0])


def test_replicas_agree_while_redis_is_there_and_serve_while_it_is_not(live_bundle_path, tmp_path, redis):
    stream = f"{redis.url}/nann:items"
    first_site, second_site = (live_bundle_path, tmp_path / "first"), (live_bundle_path, tmp_path / "second")
    with (
        own_server(*first_site, catalog_stream=stream) as first,
        RetrievalClient(first.grpc_url, timeout_s=20) as of_first,
    ):
        assert matching(of_first) == ITEMS
        with (
            own_server(*second_site, catalog_stream=stream, instances=2) as second,
            RetrievalClient(second.grpc_url, timeout_s=20) as of_second,
        ):
            waits_s = []
            for number in range(20):
                one, asked = ((first, of_second), (second, of_first))[number % 2]
                assert delete(one, [ALL[number]])["sequence"] == number + 1
                begun_s = time.monotonic()
                wait_until(lambda: matching(asked) == ITEMS - number - 1)  # noqa: B023
                waits_s.append(time.monotonic() - begun_s)
            assert max(waits_s) < 1
            for server in (first, second):
                commands = [Path(f"/proc/{pid}/cmdline").read_text() for pid in child_processes(server.pid)]
                assert commands
                assert not any(PASSWORD in each for each in (*commands, server.options.log_file.read_text()))

            redis.kill()
            with pytest.raises(ServerError, match="Redis does not answer at redis://127"):
                delete(first, [ALL[20]])
            wait_until(lambda: metric(second, "nann_catalog_stream_followed") == 0)
            assert matching(of_first) == matching(of_second) == ITEMS - 20
            redis.start()
            for server in (first, second):
                wait_until(lambda: metric(server, "nann_catalog_stream_followed") == 1)  # noqa: B023
            assert delete(first, [ALL[20]])["sequence"] == 21
            wait_until(lambda: matching(of_second) == ITEMS - 21)
        delete(first, ALL[21:23])
        with (
            own_server(*second_site, catalog_stream=stream) as second,
            RetrievalClient(second.grpc_url, timeout_s=20) as of_second,
        ):
            assert matching(of_second) == ITEMS - 23, "from its first answer on"
            assert second.control.catalog("catalog_status")["stream"] == "followed"
            wait_until(lambda: metric(second, "nann_catalog_stream_sequence") == 22)
        delete(first, ALL[23:24])
        delete(first, ALL[24:25])
    redis.client.xtrim("nann:items", maxlen=1, approximate=False)
    with (
        pytest.raises(
            ServerError, match=r"the journal ends with change 22, and the stream no longer has those up to 23"
        ),
        own_server(*second_site, catalog_stream=stream),
    ):
        pass


def test_the_option(live_bundle_path, tmp_path, monkeypatch):
    command = ("serve", "--bundle", live_bundle_path, "--repository", tmp_path / "repository", "--catalog-stream")
    assert "holds a password, which everybody could read" in refused(*command, "redis://:hush@127.0.0.1/0/items")
    assert "the URL of the stream has no database and key; expected redis:" in refused(*command, "redis://127.0.0.1")
    monkeypatch.setenv("NANN_CATALOG_STREAM", "http://127.0.0.1/0/items")
    assert "the Redis URL is 'http://127.0.0.1/0'; expected" in refused(*command[:-1])
    assert "--catalog-stream" in nann("serve", "--help").stdout
