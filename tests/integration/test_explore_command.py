"""`nann explore` as a process: it joins a server, with TLS too, or starts one and stops it in the end."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import urllib.request
from typing import Any

import pytest
from support.certificates import make_certificate
from support.cli_commands import refused
from support.explore_process import WITH_PORTS, exploring
from support.live_bundle import item_ids
from support.own_server import server_options
from support.ports import free_ports
from support.tls_proxy import tls_proxy
from support.waiting import wait_until

from nann.clients import RetrievalClient, Tls
from nann.python_backend.operator_filters import OperatorFilters
from nann.python_backend.repository.install import install_bundle
from nann.python_backend.server.tls import ServerTls
from nann.python_backend.server.triton import TritonServer

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


def test_of_several_servers_the_first_ones_metrics_are_read(server, live_bundle_path, tmp_path):
    (nobodys,) = free_ports(1)
    with exploring(live_bundle_path, tmp_path, "--url", f"{server.grpc_url}, localhost:{nobodys}") as printed:
        assert [printed[name].rpartition(":")[0] for name in ("http", "metrics")] == ["127.0.0.1"] * 2
        assert asked(printed["url"], "status")["ready"]


@pytest.fixture(scope="module")
def secured(live_bundle_path, tmp_path_factory):
    """A server with TLS in both directions, whose operator has named a filter, and the options of its clients."""
    folder = tmp_path_factory.mktemp("secured")
    own, client = (make_certificate(folder, name) for name in ("server", "client"))
    install_bundle(live_bundle_path, folder / "repository")
    OperatorFilters(folder / "repository").set("cheap", "price < 5")
    with TritonServer(server_options(folder, tls=ServerTls(*own, client_ca=client[0]))) as server:
        yield server, {"--tls-ca": own[0], "--tls-cert": client[0], "--tls-key": client[1]}


def test_it_joins_a_server_with_tls(secured, live_bundle_path, tmp_path):
    server, files = secured
    ca, certificate, key = files.values()
    repository, ports = server.options.repository, (server.options.http_port, server.options.metrics_port)
    with (
        tls_proxy(ports[0], ca, ca.with_suffix(".key")) as http_url,
        tls_proxy(ports[1], ca, ca.with_suffix(".key")) as metrics_url,
        exploring(
            *(live_bundle_path, tmp_path, "--url", server.grpc_url, "--repository", repository),
            *("--http-url", f"https://{http_url}", "--metrics-url", f"https://{metrics_url}"),
            *(word for pair in files.items() for word in pair),
        ) as printed,
    ):
        url = printed["url"]
        assert asked(url, "status")["ready"]
        question = {"items": [30, 40], "parameters": {"top_k": 5, "filter_name": "cheap"}}
        answer = asked(url, "query", question)
        with RetrievalClient(server.grpc_url, tls=Tls(ca, certificate, key)) as client:
            result = client.retrieve(item_ids()[[30, 40]].tolist(), top_k=5, filter="price < 5")
        assert [int(each["id"]) for each in answer["items"]] == result.item_ids[0].tolist()
        assert asked(url, "walk", question)["matching"] == answer["matching"] == result.items_matching[0]
        wait_until(lambda: asked(url, "health")["totals"].get("complete", 0) > 0)
        copies = asked(url, "snippets", question)
        printed_by = [
            subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
            for command in (["sh", "-c", copies["curl"]], [sys.executable, "-c", copies["python"]])
        ]
    outputs = {each["name"]: each["data"] for each in json.loads(printed_by[0])["outputs"]}
    assert outputs["item_ids"] == result.item_ids[0].tolist()
    assert str(result.item_ids[0, 0]) in printed_by[1]


def test_a_server_with_tls_says_nothing_to_who_comes_without(secured, live_bundle_path, tmp_path):
    with exploring(live_bundle_path, tmp_path, "--url", secured[0].grpc_url) as printed:
        assert asked(printed["url"], "status")["ready"] is False


def test_with_tls_no_server_is_started(live_bundle_path, tmp_path):
    with exploring(live_bundle_path, tmp_path, "--tls") as printed:
        assert asked(printed["url"], "status")["ready"] is False


def test_a_missing_certificate_is_said(live_bundle_path, tmp_path):
    given = ("explore", "--bundle", live_bundle_path)
    assert f"{tmp_path / 'no'} is no file" in refused(*given, "--tls-ca", tmp_path / "no")
    assert "belong together; expected both" in refused(*given, "--tls-cert", live_bundle_path / "manifest.json")
    assert "url is 'http://h:1'; expected host:port without a scheme" in refused(*given, "--url", "http://h:1")


def test_a_folder_that_is_no_data_set_is_said_before_a_server_is_started(live_bundle_path, tmp_path):
    given = ("explore", "--bundle", live_bundle_path, "--cache", tmp_path, "--port", 0)
    assert f"{tmp_path} is no prepared data set" in refused(*given, "--data", tmp_path)


def test_it_starts_a_server_and_stops_it(live_bundle_path, tmp_path):
    with exploring(live_bundle_path, tmp_path, "--no-open") as printed:
        assert asked(printed["url"], "status") == {
            "ready": True, "serves": asked(printed["url"], "about")["bundle"], "same_bundle": True, "same_search": True,
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
