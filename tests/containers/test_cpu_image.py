"""`docker compose --profile cpu up`: the small image is built, asked, updated, stopped and started again."""

from __future__ import annotations

import json
import shutil
import urllib.request

import numpy as np
import pytest
from support.container_engine import ROOT, Compose, command_in, healthy, project, stand_in
from support.live_bundle import item_ids
from support.own_server import own_server
from support.under_load import MIXED, Load
from support.waiting import wait_until

from nann.clients import RetrievalClient
from nann.errors import ServerUnavailable

pytestmark = [pytest.mark.containers, pytest.mark.timeout(1800)]

SERVICE = "server-cpu"
KEY = "0123abc"
HTTP, GRPC, METRICS = "127.0.0.1:8000", "127.0.0.1:8001", "127.0.0.1:8002"
GIGABYTE = 10**9


@pytest.fixture(scope="module")
def compose(engine, debian, bundles, tmp_path_factory):
    variables = {"DEBIAN_IMAGE": debian, "BUNDLE": str(bundles["first"].path), "NANN_ADMIN_KEY": KEY}
    with project(Compose(engine, tmp_path_factory.mktemp("compose"), variables), SERVICE) as compose:
        healthy(compose, SERVICE)
        yield compose


@pytest.mark.parametrize(("url", "protocol"), [(HTTP, "http"), (GRPC, "grpc")])
def test_it_answers_as_nann_serve_does(compose, bundles, tmp_path, url, protocol):
    asked = [item_ids()[first : first + 9].tolist() for first in range(20, 200, 20)]
    with own_server(bundles["first"].path, tmp_path) as server:
        with RetrievalClient(server.grpc_url, timeout_s=30) as client:
            expected = client.retrieve(asked, top_k=50)
        with RetrievalClient(url, protocol, timeout_s=30) as client:
            answered = client.retrieve(asked, top_k=50)
            assert client.bundle_id() == bundles["first"].bundle_id
    np.testing.assert_array_equal(answered.item_ids, expected.item_ids)
    np.testing.assert_array_equal(answered.scores, expected.scores)


def test_the_image_is_small_and_holds_no_compiler(compose, engine):
    assert engine.inspect("nann-cpu")["Size"] < GIGABYTE
    assert command_in(compose, SERVICE, ["sh", "-c", "command -v g++ gcc cc make cmake || echo none"]).strip() == "none"


def test_it_runs_without_rights_and_writes_only_where_it_may(compose, engine):
    known = engine.inspect(compose.container(SERVICE))
    assert known["Config"]["User"] == "10001"
    assert known["HostConfig"]["CapDrop"] == ["ALL"]
    assert known["HostConfig"]["ReadonlyRootfs"] is True
    assert known["HostConfig"]["SecurityOpt"] == ["no-new-privileges:true"]
    assert {mount["Destination"]: mount["RW"] for mount in known["Mounts"]} == {"/bundle": False, "/var/lib/nann": True}
    assert command_in(compose, SERVICE, ["id", "--user"]).strip() == "10001"
    for folder in ("/", "/bundle", "/opt/nann", "/home/nann"):
        tried = compose("exec", "-T", SERVICE, "touch", f"{folder}/file", check=False)
        assert "Read-only file system" in tried.stderr, folder


def test_its_list_of_packages_is_what_pip_finds(compose):
    listed = json.loads(command_in(compose, SERVICE, ["cat", "/opt/nann/sbom.cdx.json"]))
    assert listed["bomFormat"] == "CycloneDX"
    packages = {(one["name"].lower(), one["version"]) for one in listed["components"]}
    found = json.loads(command_in(compose, SERVICE, ["pip", "list", "--format", "json"]))
    installed = {(one["name"].lower(), one["version"]) for one in found if one["name"] != "nann"}
    assert {"numpy", "onnxruntime", "nvidia-pytriton"} <= {name for name, _ in packages}
    assert packages == installed


def test_a_bundle_is_deployed_in_the_container_and_outlives_it(compose, bundles):
    both = {name: bundles[name] for name in ("first", "second")}
    with Load(GRPC, both) as load:
        deploy = ["deploy", "/bundle-2", "--repository", "/var/lib/nann/model_repository", "--url", "triton:8000"]
        mounted = f"{bundles['second'].path}:/bundle-2:ro"
        compose("run", "--rm", "--no-deps", "--volume", mounted, "--entrypoint", "nann", SERVICE, *deploy, timeout=120)
        load.wait_for(lambda: load.answers["second"] >= 5)
    assert not load.failures
    assert load.answers[MIXED] == 0
    compose("up", "--detach", "--force-recreate", SERVICE)
    healthy(compose, SERVICE)
    with RetrievalClient(GRPC, timeout_s=30) as client:
        assert client.bundle_id() == bundles["second"].bundle_id


def test_sigterm_answers_what_it_has_taken_and_a_restart_goes_on(compose, engine, bundles):
    with Load(GRPC, bundles) as load:
        load.more()
        compose("stop", SERVICE)
    assert load.answers[MIXED] == 0
    assert {type(failure.error) for failure in load.failures} <= {ServerUnavailable}, load.failures[:3]
    assert engine.inspect(compose.container(SERVICE))["State"]["ExitCode"] == 0
    compose("start", SERVICE)
    healthy(compose, SERVICE)
    with RetrievalClient(GRPC, timeout_s=30) as client:
        assert client.retrieve(item_ids()[20:26].tolist()).status.tolist() == [0]


def test_a_change_of_code_installs_no_package_and_compiles_nothing(compose, engine, tmp_path):
    """The layers of the packages are taken as they are; then the network is not needed."""
    context = tmp_path / "context"
    left_out = shutil.ignore_patterns("__pycache__", "*.so", ".venv", ".git", "build", "tests", "docs")
    shutil.copytree(ROOT, context, symlinks=True, ignore=left_out)
    with (context / "cli" / "main.py").open("a") as file:
        file.write("# another line\n")
    arguments = configured(compose, SERVICE)["build"]["args"]
    log = engine.build("nann-test/changed", context / "docker/Dockerfile", context, "--target", "server", **arguments)
    steps = {line.split(" ")[0]: line for line in log.splitlines() if "] RUN " in line}
    cached = {line.split(" ")[0] for line in log.splitlines() if line.endswith(" CACHED")}
    again = [step for number, step in steps.items() if number not in cached]
    assert len(again) == 2, again
    assert "pip wheel" in again[0]
    assert "/wheels/*.whl" in again[1]
    assert "Building CXX" not in log


# Prometheus


def configured(compose: Compose, service: str) -> dict:
    """What compose makes of a service's part of the file."""
    return json.loads(compose("config", "--format", "json").stdout)["services"][service]


@pytest.fixture(scope="module")
def prometheus(compose, engine, debian):
    """Beside the server: the image's own, or Debian's package of it."""
    if not engine.has_image(configured(compose, "prometheus")["image"]):
        compose.variables["PROMETHEUS_IMAGE"] = stand_in(engine, "prometheus", DEBIAN_IMAGE=debian)
    compose("up", "--detach", "prometheus")
    return "http://127.0.0.1:9090/api/v1"


def asked(url: str) -> dict:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return json.load(answer)["data"]


def test_prometheus_scrapes_the_server_and_has_its_rules(compose, prometheus):
    def value(query: str) -> float | None:
        try:
            found = asked(f"{prometheus}/query?query={query}")["result"]
        except OSError:  # not up yet
            return None
        return float(found[0]["value"][1]) if found else None

    wait_until(lambda: value("up") == 1, lambda: compose("logs", "prometheus").stdout[-2000:])
    with RetrievalClient(GRPC, timeout_s=30) as client:
        client.retrieve(item_ids()[20:26].tolist())
    wait_until(lambda: (value("nann_behavior_items_total") or 0) > 0)
    rules = {rule["name"] for group in asked(f"{prometheus}/rules")["groups"] for rule in group["rules"]}
    assert "NannItemsUnplaced" in rules
