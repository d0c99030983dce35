"""`nann explore` as a process: it joins a server, or starts one and stops it in the end."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import urllib.request
from typing import Any

import pytest
from support.cli_commands import refused
from support.explore_process import WITH_PORTS, exploring
from support.live_bundle import item_ids
from support.ports import free_ports
from support.waiting import wait_until

from nann.clients import RetrievalClient

pytestmark = pytest.mark.triton


def asked(url: str, path: str, body: dict[str, Any] | None = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"{url}/api/{path}", data, {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.loads(answer.read())


def test_it_joins_a_server(server, live_bundle_path, tmp_path):
    addresses = ("--http-url", server.http_url, "--metrics-url", server.metrics_url)
    with exploring(live_bundle_path, tmp_path, "--url", server.grpc_url, *addresses) as printed:
        assert (printed["grpc"], printed["http"], printed["metrics"]) == (server.grpc_url, *addresses[1::2])
        answer = asked(printed["url"], "query", {"items": [30, 40], "parameters": {"top_k": 5}})
        with RetrievalClient(server.grpc_url) as client:
            result = client.retrieve(item_ids()[[30, 40]].tolist(), top_k=5)
        assert [int(each["id"]) for each in answer["items"]] == result.item_ids[0].tolist()
        assert [each["score"] for each in answer["items"]] == result.scores[0].tolist()
        wait_until(lambda: asked(printed["url"], "health")["totals"]["complete"] > 0)
    assert server.pid is not None, "a server that was joined goes on"


def test_it_starts_a_server_and_stops_it(live_bundle_path, tmp_path):
    with exploring(live_bundle_path, tmp_path, "--no-open") as printed:
        assert asked(printed["url"], "status") == {
            "ready": True, "serves": asked(printed["url"], "about")["bundle"], "same_bundle": True,
        }  # fmt: skip
    host, port = printed["grpc"].split(":")
    with pytest.raises(ConnectionRefusedError), socket.create_connection((host, int(port)), timeout=5):
        pass


def test_a_port_that_is_taken_is_said(live_bundle_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert f"127.0.0.1:{port} can't be listened at" in refused(
            "explore", "--bundle", live_bundle_path, "--port", port
        )


def test_a_server_that_does_not_start_ends_it(live_bundle_path, tmp_path):
    options = ("--bundle", live_bundle_path, "--repository", tmp_path / "r", "--histories", tmp_path / "no")
    command = [sys.executable, "-c", WITH_PORTS, *free_ports(3), *options, "--port", 0]
    ended = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=60, cwd=tmp_path)
    assert ended.returncode == 2
    assert "`nann serve` ended with exit code 2; its last lines say why" in ended.stderr
