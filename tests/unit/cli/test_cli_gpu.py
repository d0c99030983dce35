"""`nann export --half`, `plan-shapes`, `build-engine`, and the GPU report rehearsed on the CPU."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.cli_commands import Pipeline, nann, refused
from support.gpu_checks import check_gpu_report

from nann.bundle import Bundle
from nann.training.export.tensorrt_api import LIBRARIES

pytestmark = pytest.mark.heavy


@pytest.fixture(scope="module")
def gpu_bundle(pipeline: Pipeline, tmp_path_factory) -> Path:
    bundle = Path(shutil.copytree(pipeline.bundle, tmp_path_factory.mktemp("gpu") / "bundle"))
    source = ("--data", pipeline.data, "--checkpoint", pipeline.checkpoint, "--bundle", bundle)
    assert nann("export", *source, "--half").code == 0
    return bundle


def test_half_precision_and_planned_shapes(pipeline, gpu_bundle):
    ended = nann("plan-shapes", "--bundle", gpu_bundle, "--data", pipeline.data, "--shapes", 2, "--json")
    assert ended.code == 0, ended.stderr
    assert "of the computed scores are padding" in " ".join(ended.stderr.split())
    bundle = Bundle.open(gpu_bundle)
    assert bundle.shape_grid.to_manifest() == ended.json["shape_grid"]
    assert ended.json["lockstep"] <= ended.json["padded"]
    assert bundle.notes["half_precision"]["coverage"] >= 0.95


def test_plans(gpu_bundle, tmp_path):
    pytest.importorskip("tensorrt_rtx")
    options = ("--compute-capability", "8.6", "--optimization-level", 0)
    ended = nann("build-engine", "--bundle", gpu_bundle, "--out", tmp_path / "plans", *options, "--json")
    assert ended.code == 0, ended.stderr
    assert "scorer: " in ended.stderr
    assert "half precision, network inspected, the engine not" in ended.stderr
    assert ended.json["plans"].keys() == {"user_encoder", "scorer"}
    line = refused("serve", "--bundle", gpu_bundle, "--repository", tmp_path / "r", "--plans", tmp_path / "plans")
    assert "were built with tensorrt_rtx, which Triton does not load" in line


def test_without_tensorrt_the_exit_code_is_2(gpu_bundle, tmp_path, monkeypatch):
    for name in LIBRARIES:
        monkeypatch.setitem(sys.modules, name, None)
    line = refused("build-engine", "--bundle", gpu_bundle, "--out", tmp_path / "plans")
    assert "TensorRT is not installed" in line
    assert "docker compose --profile gpu run --rm build-engine" in line


@pytest.mark.parametrize("given", [(), ("--data", "a", "--requests", "b")])
def test_a_log_or_a_data_set(gpu_bundle, given):
    line = refused("plan-shapes", "--bundle", gpu_bundle, *given)
    assert "give either --requests, a log of requests, or --data" in line


def test_the_target_tensorrt_without_plans(pipeline, tmp_path, monkeypatch):
    command = ("serve", "--bundle", pipeline.bundle, "--repository", tmp_path / "r", "--target", "tensorrt")
    assert "has no tensorrt backend; start it with `nann serve --target embedded` or torch" in refused(*command)
    assert not (tmp_path / "r").exists(), "nothing is installed for a target that this Triton lacks"
    monkeypatch.setattr(
        "nann.python_backend.server.triton_install.TritonInstall.check_target", lambda install, target: None
    )
    assert "no TensorRT plans are installed" in refused(*command)


@pytest.mark.slow
@pytest.mark.triton
def test_the_gpu_report_rehearsed(pipeline, gpu_bundle, tmp_path):
    requests = tmp_path / "requests.jsonl"
    source = ("--data", str(pipeline.data))
    subprocess.run([sys.executable, "-m", "nann.perf.load.requests", *source, "--out", requests, "--log"], check=True)
    assert nann("plan-shapes", "--bundle", gpu_bundle, "--requests", requests).code == 0
    command = [
        sys.executable,
        "-m",
        "nann.perf.gpu.report",
        "--bundle",
        gpu_bundle,
        *source,
        "--out",
        tmp_path / "report",
    ]
    options = ["--device", "cpu", "--concurrency", "1,3", "--duration-s", "1", "--training-steps", "2"]
    subprocess.run([*command, *options], check=True, timeout=240)
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    assert report["device"] == "CPU"
    points = Bundle.open(gpu_bundle).shape_grid.points
    assert [(point["users"], point["width"]) for point in report["points"]] == points
    assert all(point["difference"] < 1e-5 and point["half_difference"] < 2e-2 for point in report["points"])
    assert [row["concurrency"] for row in report["load"]] == [1, 3]
    assert all(row["qps"] > 0 and row["users_per_search"] >= 1 for row in report["load"])
    assert report["skipped"] == {"tensorrt": "no --plans"}
    assert {point["strategy"] for point in report["strategies"]["points"]} == {"all", "scan", "walk"}
    check_gpu_report(report, (tmp_path / "report" / "report.md").read_text())
