"""`nann batch` from live servers and on a real Ray: the same answers as in one process."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from support.certificates import make_certificate
from support.cli_commands import nann
from support.live_bundle import ITEMS, item_ids, make_bundle
from support.own_server import control, own_server
from support.tls_proxy import tls_proxy
from support.waiting import wait_until

from nann.errors import BundleError, ConfigError, ServerError
from nann.item_ids import NUMBERS
from nann.python_backend.server.processes import child_processes
from nann.search_params import SearchOptions
from nann.signature import SCORER
from nann.training.batch import on_ray
from nann.training.batch.histories import read_histories
from nann.training.batch.on_ray import RayAnswers

USERS = 2000
OPTIONS = ("--exclude-history", "--filter", "available", "--top-k", 15)


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    rng = np.random.default_rng(4)
    items = [item_ids()[rng.integers(10, ITEMS, rng.integers(0, 30))].tolist() for _ in range(USERS)]
    path = tmp_path_factory.mktemp("users") / "histories.parquet"
    pl.DataFrame({"user": range(1, USERS + 1), "items": items}).write_parquet(path)
    return path


@pytest.fixture(scope="module")
def in_process(table, live_bundle_path, tmp_path_factory):
    out = tmp_path_factory.mktemp("in_process") / "out"
    assert nann("batch", "--histories", table, "--bundle", live_bundle_path, "--out", out, *OPTIONS).code == 0
    return read(out)


def read(out: Path) -> pl.DataFrame:
    return pl.read_parquet(out / "answers")


def assert_same(found: pl.DataFrame, expected: pl.DataFrame) -> None:
    assert found["user"].to_list() == expected["user"].to_list()
    assert found["item_ids"].to_list() == expected["item_ids"].to_list()
    scores = (frame["scores"].explode().to_numpy() for frame in (found, expected))
    np.testing.assert_allclose(*scores, rtol=1e-5, atol=1e-5)


@pytest.mark.triton
@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_servers_give_the_same_answers(server, table, in_process, tmp_path, protocol):
    (tmp_path / "users").write_text("\n".join(map(str, range(1, 301))))
    url = server.grpc_url if protocol == "grpc" else server.http_url
    asked = ("--histories", table, "--users", tmp_path / "users", "--protocol", protocol, "--part-users", 100)
    ended = nann("batch", *asked, "--url", f"{url},{url}", "--out", tmp_path / "out", *OPTIONS, "--json")
    assert ended.code == 0, ended.stderr
    assert ended.json["answered"] == 300
    assert_same(read(tmp_path / "out"), in_process[:300])


@pytest.mark.triton
def test_servers_behind_tls(server, table, in_process, tmp_path):
    (tmp_path / "users").write_text("\n".join(map(str, range(1, 101))))
    certificate, key = make_certificate(tmp_path, "proxy")
    asked = ("--histories", table, "--users", tmp_path / "users", "--protocol", "http", "--out", tmp_path / "out")
    with tls_proxy(int(server.http_url.split(":")[1]), certificate, key) as url:
        ended = nann("batch", *asked, "--url", url, "--tls", *OPTIONS)
        assert (ended.code, "no retrieval server answers at" in ended.stderr) == (2, True), ended.stderr
        ended = nann("batch", *asked, "--url", url, "--tls-ca", certificate, *OPTIONS)
        assert ended.code == 0, ended.stderr
    assert_same(read(tmp_path / "out"), in_process[:100])


def test_tls_is_for_servers(table, live_bundle_path, tmp_path):
    ended = nann("batch", "--histories", table, "--bundle", live_bundle_path, "--out", tmp_path / "out", "--tls")
    assert (ended.code, "a --tls option came without --url; it is for servers" in ended.stderr) == (2, True)


@pytest.mark.triton
def test_servers_that_can_not_give_the_answers(live_bundle_path, server, table, tmp_path):
    other = make_bundle(tmp_path / "other", seed=2).path
    out = tmp_path / "out"
    with own_server(other, tmp_path, on_scorer_failure="fallback") as degrading:
        urls = f"{server.grpc_url},{degrading.grpc_url}"
        ended = nann("batch", "--histories", table, "--url", urls, "--out", out)
        assert (ended.code, "the servers answer from different bundles" in ended.stderr) == (2, True), ended.stderr
        control(degrading, SCORER.name, "unload")
        ended = nann("batch", "--histories", table, "--url", degrading.grpc_url, "--out", out)
        assert (ended.code, "a server's answer is degraded" in ended.stderr) == (2, True), ended.stderr
    assert list((out / "answers").glob("*")) == []
    ended = nann("batch", "--histories", table, "--url", degrading.grpc_url, "--out", out)
    assert (ended.code, "no retrieval server answers at" in ended.stderr) == (2, True), ended.stderr


@pytest.mark.slow
def test_ray_gives_the_same_answers_though_a_process_is_killed(live_bundle_path, table, in_process, tmp_path):
    out = tmp_path / "out"
    command = [sys.executable, "-m", "nann", "batch", "--histories", table, "--bundle", live_bundle_path]
    command += ["--out", out, "--workers", "2", "--part-users", "50", *OPTIONS]
    with (tmp_path / "words").open("w") as words:
        job = subprocess.Popen(list(map(str, command)), stdout=words, stderr=words)
    parts = out / "answers"
    try:
        wait_until(lambda: job.poll() is not None or len(list(parts.glob("part-*"))) >= 3, "no part", 250)
        (first, *_) = workers(job.pid)
        os.kill(first, signal.SIGKILL)
        there = len(list(parts.glob("part-*")))
        assert job.wait(timeout=250) == 0, (tmp_path / "words").read_text()
    finally:
        job.kill()
    assert there < USERS // 50, "it was killed too late"
    assert_same(read(out), in_process)


@pytest.mark.slow
def test_what_ray_can_not_do_is_told(live_bundle_path, table, tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match=r"no Ray cluster can be used at 127.0.0.1:1: .*start one with `ray start`"):
        RayAnswers(live_bundle_path, SearchOptions(), 1, "127.0.0.1:1")
    with (
        pytest.raises(BundleError, match="nowhere is not a bundle"),
        RayAnswers(tmp_path / "nowhere", SearchOptions(), 1),
    ):
        pass
    with monkeypatch.context() as patch:
        patch.setattr(on_ray, "_READY_S", 0.01)
        pool = RayAnswers(live_bundle_path, SearchOptions(), 1)
        with pytest.raises(ServerError, match=r"did not start the processes within 0.01 s"):
            pool.__enter__()
    monkeypatch.setattr(on_ray, "_RESTARTS", 0)
    users = read_histories(table, NUMBERS)
    with RayAnswers(live_bundle_path, SearchOptions(), 1) as pool:
        answers = pool.answers(users[:256] for _ in range(1000))
        assert len(next(answers).scores) == 256
        (worker,) = workers(os.getpid())
        os.kill(worker, signal.SIGKILL)
        with pytest.raises(ServerError, match="a process of Ray died too often"):
            list(answers)


def workers(pid: int) -> list[int]:
    """The actors' processes, among all that a process has started."""
    found, left = [], [pid]
    while left:
        children = list(child_processes(left.pop()))
        left += children
        found += [child for child in children if "ray::BatchWorker" in Path(f"/proc/{child}/cmdline").read_text()]
    return found
