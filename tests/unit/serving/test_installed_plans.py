"""TensorRT plans in a model repository: for which targets they are there, and which are refused."""

import json

import pytest
from support import tiny_bundle

from nann.bundle import Bundle
from nann.errors import BundleError, ConfigError
from nann.python_backend.repository.configs import check_target
from nann.python_backend.repository.install import install_bundle


@pytest.fixture
def bundle(tmp_path):
    return tiny_bundle.make_bundle(tmp_path / "bundle").path


def test_targets_are_checked(bundle, tmp_path):
    repository = tmp_path / "repository"
    opened = install_bundle(bundle, repository)
    for target in ("embedded", "onnxruntime", "torch"):
        check_target(repository, target)
    targets = "embedded, onnxruntime, tensorrt, torch"
    with pytest.raises(ConfigError, match=f"target is 'gpu'; user_encoder has configurations for {targets}"):
        check_target(repository, "gpu")
    with pytest.raises(
        ConfigError, match=r"no TensorRT plans are installed in .*; build them with `nann build-engine`"
    ):
        check_target(repository, "tensorrt")
    install_bundle(bundle, repository, plans=tiny_bundle.make_plans(tmp_path / "plans", opened))
    check_target(repository, "tensorrt")
    assert (repository / "scorer" / "2" / "model.plan").read_bytes() == b"scorer"
    assert (repository / "user_encoder" / "2" / "model.plan").read_bytes() == b"user_encoder"


def changed_plan(plans):
    (plans / "scorer.plan").write_bytes(b"other")


def other_onnx(plans):
    manifest = json.loads((plans / "plans.json").read_text())
    manifest["plans"]["scorer"]["onnx_sha256"] = "0" * 64
    (plans / "plans.json").write_text(json.dumps(manifest))


def other_grid(plans):
    manifest = json.loads((plans / "plans.json").read_text())
    manifest["shape_grid"]["widths"] = [7]
    (plans / "plans.json").write_text(json.dumps(manifest))


def other_library(plans):
    manifest = json.loads((plans / "plans.json").read_text())
    (plans / "plans.json").write_text(json.dumps({**manifest, "library": "tensorrt_rtx"}))


def missing_plan(plans):
    manifest = json.loads((plans / "plans.json").read_text())
    del manifest["plans"]["scorer"]
    (plans / "plans.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (changed_plan, r"scorer\.plan is missing or was changed after it was built"),
        (other_onnx, r"scorer\.plan was built from another scorer\.onnx \(000000000000\.\.\."),
        (other_grid, r"have widths \[7\]; the bundle's padding grid has \[64, 256, "),
        (other_library, "were built with tensorrt_rtx, which Triton does not load; build them with TensorRT"),
        (missing_plan, r"plans\.json lists no plan of scorer"),
        (lambda plans: (plans / "plans.json").unlink(), r"holds no TensorRT plans: it has no plans\.json"),
        (lambda plans: (plans / "plans.json").write_text("{"), r"plans\.json can't be read"),
        (lambda plans: (plans / "plans.json").write_text('{"format_version": 9}'), "has format version 9; .* reads 1"),
    ],
)
def test_plans_of_something_else_are_refused(bundle, tmp_path, spoil, message):
    plans = tiny_bundle.make_plans(tmp_path / "plans", Bundle.open(bundle))
    spoil(plans)
    with pytest.raises(BundleError, match=message):
        install_bundle(bundle, tmp_path / "repository", plans=plans)
    assert not (tmp_path / "repository").exists()
