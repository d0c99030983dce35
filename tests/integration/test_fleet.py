"""Three servers behind Envoy: equal shares, one that is killed, one that comes in its place, a new bundle for all."""

from __future__ import annotations

import contextlib
import itertools
import os
import subprocess
import sys
import time

import pytest
from support.fleet import KEY, envoy_before, kill, requests_of, servers, tcp_proxy
from support.live_bundle import make_bundle
from support.serve_process import serving
from support.under_load import Load
from support.waiting import wait_until

from nann.bundle import Bundle

pytestmark = [pytest.mark.triton, pytest.mark.slow, pytest.mark.timeout(900)]

COUNT = 3
PROTOCOLS = ("grpc", "http")


@pytest.fixture(scope="module")
def bundles(live_bundle_path, tmp_path_factory):
    other = make_bundle(tmp_path_factory.mktemp("other") / "bundle", seed=2)
    return {"first": Bundle.open(live_bundle_path), "second": other}


@pytest.fixture(scope="module")
def fleet(bundles, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NANN_ADMIN_KEY", KEY)
        with servers(bundles["first"].path, tmp_path_factory.mktemp("fleet"), COUNT) as fleet:
            yield fleet


@pytest.fixture(scope="module")
def envoy(fleet, tmp_path_factory):
    with envoy_before(fleet, tmp_path_factory.mktemp("envoy")) as envoy:
        yield envoy


def url_of(envoy, protocol: str) -> str:
    return envoy.grpc_url if protocol == "grpc" else envoy.http_url


def asked_in_turn(fleet, bundles, threads: int) -> Load:
    """By clients that know all addresses, without a proxy."""
    return Load(",".join(one.grpc_url for one in fleet), bundles, threads, retry=True)


@pytest.mark.parametrize("protocol", [*PROTOCOLS, "addresses"])
def test_servers_get_equal_shares(envoy, fleet, bundles, protocol):
    before = [requests_of(one) for one in fleet]
    behind = Load(url_of(envoy, protocol), bundles, threads=6, protocol=protocol) if protocol in PROTOCOLS else None
    with behind or asked_in_turn(fleet, bundles, threads=6) as load:
        load.more(600)
    counts = [requests_of(one) - count for one, count in zip(fleet, before, strict=True)]
    shares = [count / sum(counts) for count in counts]
    print(f"\nshares of {COUNT} servers over {protocol}: {', '.join(f'{share:.1%}' for share in shares)}")
    assert not load.failures
    assert all(abs(share - 1 / COUNT) <= 0.1 / COUNT for share in shares), counts


def test_a_plain_tcp_proxy_sends_all_of_a_connection_to_one(fleet, bundles):
    """What a Service of Kubernetes does, or HAProxy in mode tcp: it chooses once, when the client connects."""
    before = [requests_of(one) for one in fleet]
    with tcp_proxy([one.grpc_url for one in fleet]) as url, Load(url, bundles, threads=1) as load:
        load.more(100)
    counts = [requests_of(one) - count for one, count in zip(fleet, before, strict=True)]
    print(f"\nrequests of one client behind a TCP proxy: {counts}")
    assert sorted(counts)[:-1] == [0] * (COUNT - 1)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_server_that_is_taken_out_gets_no_more_though_it_is_ready(envoy, fleet, bundles, protocol):
    with Load(url_of(envoy, protocol), bundles, threads=6, protocol=protocol) as load:
        envoy.send_to(fleet[1:])
        wait_until(lambda: envoy.healthy() == COUNT - 1)
        load.more(30)
        before = requests_of(fleet[0])
        load.more(60)
        assert requests_of(fleet[0]) == before
        assert fleet[0].is_ready()
        envoy.send_to(fleet)
        wait_until(lambda: envoy.healthy() == COUNT)
    assert not load.failures


def test_a_new_bundle_for_all_of_them_one_after_the_other(envoy, fleet, bundles):
    with Load(envoy.grpc_url, bundles, threads=2) as load, asked_in_turn(fleet, bundles, threads=2) as alone:
        begin = time.monotonic()
        for one in fleet:
            deploy(bundles["second"], one)
        took = time.monotonic() - begin
        load.wait_for(lambda: min(load.answers["second"], alone.answers["second"]) >= 30)
    answers = load.answers + alone.answers
    print(f"\nrolling deploy over {COUNT} servers: {took:.0f} s, {answers.total()} answers, 0 failed, 0 mixed")
    assert not load.failures
    assert not alone.failures
    assert set(answers) == {"first", "second"}
    with Load(envoy.grpc_url, bundles) as after:
        after.more(60)
    assert set(after.answers) == {"second"}


def deploy(bundle, serve) -> None:
    command = [sys.executable, "-m", "nann", "deploy", str(bundle.path), "--url", serve.http_url]
    command += ["--repository", str(serve.folder / "repository")]
    done = subprocess.run(
        command, env={**os.environ, "NANN_ADMIN_KEY": KEY}, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_server_that_is_killed_fails_no_request_and_another_takes_its_place(
    envoy, fleet, bundles, tmp_path, protocol
):
    others, bundle = fleet[1:], bundles["second"].path
    folders = [tmp_path / name for name in ("killed", "new")]
    for folder in folders:
        folder.mkdir()
    with contextlib.ExitStack() as stack:
        killed = stack.enter_context(serving(bundle, folders[0]))
        envoy.send_to([killed, *others])
        wait_until(lambda: envoy.healthy() == COUNT)
        with Load(url_of(envoy, protocol), bundles, 6, protocol) as load:
            load.more(100)
            kill(killed)
            load.more(300)
            answered = len(load.times_s)
            wait_until(lambda: envoy.healthy() == COUNT - 1)
            begin = time.monotonic()
            new = stack.enter_context(serving(bundle, folders[1]))
            envoy.send_to([new, *others])
            wait_until(lambda: requests_of(new) > 0)
            took = time.monotonic() - begin
    envoy.send_to(fleet)
    wait_until(lambda: envoy.healthy() == COUNT)
    assert not load.failures, load.failures[:3]
    assert set(load.answers) == {"second"}
    times = [when for when, _ in load.times_s[:answered]]
    gap = max(after - before for before, after in itertools.pairwise(times))
    print(f"\nkill -9 of one of {COUNT} over {protocol}: 0 failed, longest time without an answer {gap * 1000:.0f} ms")
    print(f"a new server answers {took:.1f} s after its start")


def test_clients_that_know_all_addresses_do_without_one_that_is_killed(fleet, bundles, tmp_path):
    with serving(bundles["second"].path, tmp_path) as killed:
        with asked_in_turn([killed, *fleet[1:]], bundles, threads=6) as load:
            load.more(100)
            kill(killed)
            load.more(300)
        assert not load.failures, load.failures[:3]
        gap = max(after - before for (before, _), (after, _) in itertools.pairwise(load.times_s))
        print(f"\nkill -9 of one of {COUNT} addresses: 0 failed, longest time without an answer {gap * 1000:.0f} ms")
