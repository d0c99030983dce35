"""The images on NVIDIA's, built upon a stand-in of it: Debian with the wheel's Triton under /opt/tritonserver.

What NVIDIA's image alone has is not run: its Triton, its backends for TensorRT and ONNX Runtime, TensorRT itself.
"""

from __future__ import annotations

import re

import numpy as np
import pytest
from support.container_engine import ROOT, Compose, copy_wheels, healthy, project, stand_in
from support.live_bundle import item_ids
from support.reference import OfflineEnsemble

from nann.clients import RetrievalClient

pytestmark = [pytest.mark.containers, pytest.mark.timeout(1800)]

GRPC, HTTP = "127.0.0.1:8001", "127.0.0.1:8000"


def from_file(name: str, path: str = ".env") -> str:
    """A version that the project's files pin."""
    return re.search(rf"{re.escape(name)}=+([\w.]+)", (ROOT / path).read_text()).group(1)


def number(tensorrt: str) -> str:
    """A version as TensorRT's library says it."""
    major, minor, patch, *_ = map(int, tensorrt.split("."))
    return str(major * 10000 + minor * 100 + patch)


@pytest.fixture(scope="module")
def wheels(tmp_path_factory):
    """A folder for the engine with this machine's own wheels, and their names."""
    folder = tmp_path_factory.mktemp("triton")
    return folder, copy_wheels(folder / "wheels")


@pytest.fixture(scope="module")
def triton(engine, debian, wheels):
    """Builds the stand-in, with a TensorRT that says the version of .env or another one."""

    def build(tensorrt: str = from_file("TENSORRT_VERSION")) -> dict[str, str]:
        wheel = f"nvidia-pytriton=={from_file('nvidia-pytriton', 'pyproject.toml')}"
        arguments = {"DEBIAN_IMAGE": debian, "TRITON_WHEEL": wheel, "TENSORRT": number(tensorrt)}
        image = stand_in(engine, "triton", wheels[0], **arguments)
        python = from_file("DEBIAN_PYTHON_VERSION")
        return {"TRITON_IMAGE": image, "DEBIAN_IMAGE": debian, "PYTHON_VERSION": python, "TRITON_TAG": "stand-in"}

    return build


@pytest.mark.parametrize(
    ("service", "target"), [("server-onnxruntime", "embedded"), ("server-gpu-torch", "torch")], ids=["server", "torch"]
)
def test_a_server_answers(engine, triton, wheels, bundles, tmp_path, service, target):
    if target == "torch" and not any(name.startswith("torch-") for name in wheels[1]):
        pytest.skip("no torch for CPUs among the wheels that PIP_FIND_LINKS names; that for GPUs takes gigabytes")
    variables = {**triton(), "BUNDLE": str(bundles["first"].path)}
    here = {service: {"command": ["--target", target], "deploy": "!reset []"}}
    with project(Compose(engine, tmp_path, variables, here), service) as compose:
        healthy(compose, service)
        asked = item_ids()[20:29].tolist()
        items, scores = OfflineEnsemble(bundles["first"]).retrieve(asked)[:2]
        for url, protocol in ((GRPC, "grpc"), (HTTP, "http")):
            with RetrievalClient(url, protocol, timeout_s=30) as client:
                result = client.retrieve(asked)
            np.testing.assert_array_equal(result.item_ids[0], items)
            np.testing.assert_allclose(result.scores[0], scores, atol=1e-5)
        assert "tritonserver" in compose("exec", "-T", service, "ls", "/opt/tritonserver/bin").stdout
        compose("stop", service)
        assert engine.inspect(compose.container(service))["State"]["ExitCode"] == 0


def test_the_engine_builder_is_built_and_says_what_it_lacks(engine, triton, bundles, tmp_path):
    variables = {**triton(), "BUNDLE": str(bundles["first"].path)}
    compose = Compose(engine, tmp_path, variables, {"build-engine": {"deploy": "!reset []"}})
    compose("build", "build-engine", timeout=1200)
    try:
        tried = compose("run", "--rm", "build-engine", check=False)
        assert tried.returncode == 2, tried.stderr
        assert "which builds for RTX GPUs" in tried.stderr  # the bindings do not load here: their libraries are missing
        assert "Traceback" not in tried.stderr
    finally:
        compose("down", "--volumes", check=False)


def test_an_engine_builder_of_another_tensorrt_is_not_built(engine, triton, tmp_path):
    compose = Compose(engine, tmp_path, triton(tensorrt="11.1.0.0"))
    tried = compose("build", "build-engine", check=False, timeout=1200)
    assert tried.returncode != 0
    said = f"the image has TensorRT 110100; .env says {from_file('TENSORRT_VERSION')}: set TENSORRT_VERSION to it"
    assert said in tried.stderr + tried.stdout
