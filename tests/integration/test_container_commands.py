"""The containers' entry commands, run here with the wheel's Triton; only paths and ports are replaced."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from support.live_bundle import item_ids
from support.ports import free_ports
from support.waiting import wait_until

from nann.clients import RetrievalClient

pytestmark = pytest.mark.triton

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = (ROOT / "docker" / "Dockerfile").read_text()


def in_dockerfile(instruction: str, stage: str) -> list[str]:
    """The JSON list of an instruction in a stage."""
    part = DOCKERFILE.split(f" AS {stage}\n")[1].split("\nFROM ")[0]
    return json.loads(re.search(rf"^{instruction} (\[.*\])$", part, re.MULTILINE).group(1))


@pytest.fixture(scope="module")
def served(live_bundle_path, tmp_path_factory):
    """The command of server-cpu in the compose file."""
    folder = tmp_path_factory.mktemp("container")
    service = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]["server-cpu"]
    command = [*in_dockerfile("ENTRYPOINT", "server"), *service["command"]]
    http, grpc, metrics = free_ports(3)
    places = {"nann": str(Path(sys.executable).parent / "nann"), "/bundle": str(live_bundle_path)}
    places["/var/lib/nann/model_repository"] = str(folder / "repository")
    command = [places.get(word, word) for word in command]
    command += shlex.split(
        f"--http-port {http} --grpc-port {grpc} --metrics-port {metrics} --log-file {folder / 'log'}"
    )
    process = subprocess.Popen(command, cwd=folder, env={**os.environ, "TMPDIR": str(folder)})
    try:
        with RetrievalClient(f"127.0.0.1:{grpc}", timeout_s=20) as client:
            wait_until(lambda: client.is_ready() or process.poll() is not None)
            assert process.poll() is None, (folder / "log").read_text()
            yield client, http, metrics
    finally:
        process.send_signal(signal.SIGTERM)  # what `docker stop` sends
        assert process.wait(timeout=120) == 0


def test_the_server_command_serves(served):
    client, _, _ = served
    assert client.retrieve(item_ids()[20:25], top_k=3).item_ids.shape == (1, 3)


def test_the_health_check_passes_and_fails(served):
    _, http, _ = served
    part = DOCKERFILE.split("HEALTHCHECK")[1].split("CMD ", 1)[1].splitlines()[0]
    *_, code = json.loads(part)
    for port, expected in ((http, 0), (free_ports(1)[0], 1)):
        command = [sys.executable, "-c", code.replace("8000", str(port))]
        assert subprocess.run(command, capture_output=True, check=False).returncode == expected


def test_the_builders_command_builds(served, tmp_path, live_bundle_path):
    """Here it accepts its options, and stops because the scorer in half precision is missing."""
    command = in_dockerfile("ENTRYPOINT", "engine-builder")
    places = {"/bundle": str(live_bundle_path), "/plans": str(tmp_path / "plans")}
    command = [sys.executable, "-m", "nann", *(places.get(word, word) for word in command[1:])]
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=120, check=False)
    assert result.returncode == 2
    assert "has no scorer.fp16.onnx; run `nann export --half`" in result.stderr


def test_a_target_that_this_triton_has_no_backend_for(served, live_bundle_path, tmp_path):
    http, grpc, metrics = free_ports(3)
    command = [sys.executable, "-m", "nann", "serve", "--bundle", str(live_bundle_path), "--target", "onnxruntime"]
    command += ["--repository", str(tmp_path / "repository"), "--http-port", str(http)]
    command += ["--grpc-port", str(grpc), "--metrics-port", str(metrics)]
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=120, check=False)
    assert result.returncode == 2
    assert (
        "has no onnxruntime backend; start it with `nann serve --target embedded` or torch, or in a container of Triton"
        in result.stderr
    )
