import json
import os
import shutil
from pathlib import Path

import pytest
import tiny_bundle

from nann.bundle import Bundle, write_manifest
from nann.errors import BundleError, ConfigError
from python_backend import repository as repository_module
from python_backend.repository import TEMPLATE, check_target, default_repository, hand_written, install_bundle

GRAPH = {f"layer{n}.{part}.npy" for n in (0, 1) for part in ("indptr", "neighbors")} | {"levels.npy"}
EXPECTED = {
    "nann": set(),
    "feature_transform": {"model.py", "manifest.json", "item_ids.npy"},
    "user_encoder": {"model.py", "torch_model.py", "manifest.json", "model.onnx"},
    "beam_retrieval": {"model.py", "torch_model.py", "manifest.json", "item_ids.npy", *GRAPH},
    "scorer": {"model.py", "torch_model.py", "manifest.json", "model.onnx"},
}


def installed(repository: Path, version: int = 1) -> dict[str, set[str]]:
    return {model: {path.name for path in (repository / model / str(version)).iterdir()} for model in EXPECTED}


@pytest.fixture
def bundle(tmp_path):
    return tiny_bundle.make_bundle(tmp_path / "bundle").path


def test_each_model_gets_what_it_needs(bundle, tmp_path):
    install_bundle(bundle, tmp_path / "repository")
    assert installed(tmp_path / "repository") == EXPECTED
    written = {path.relative_to(TEMPLATE) for path in hand_written(TEMPLATE)}
    copied = {path.relative_to(tmp_path / "repository") for path in (tmp_path / "repository").rglob("*.pbtxt")}
    assert copied == written | {Path("beam_retrieval/configs/torch.pbtxt")}


def test_another_version_gets_model_files_too(bundle, tmp_path):
    install_bundle(bundle, tmp_path / "repository")
    install_bundle(bundle, tmp_path / "repository", version=2)
    assert installed(tmp_path / "repository", 2) == EXPECTED
    assert installed(tmp_path / "repository", 1) == EXPECTED


def test_files_are_linked_and_replaced_not_rewritten(bundle, tmp_path):
    install_bundle(bundle, tmp_path / "repository")
    ids = tmp_path / "repository" / "feature_transform" / "1" / "item_ids.npy"
    assert os.path.samefile(ids, bundle / "item_ids.npy")
    with ids.open("rb") as opened:
        before = opened.read()
        shutil.rmtree(bundle)
        tiny_bundle.make_bundle(bundle, sequence_length=9)
        install_bundle(bundle, tmp_path / "repository")
        opened.seek(0)
        assert opened.read() == before
    manifest = json.loads((ids.parent / "manifest.json").read_text())
    assert manifest["sequence_length"] == 9


def test_files_are_copied_where_they_cant_be_linked(bundle, tmp_path, monkeypatch):
    def other_file_system(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(repository_module.os, "link", other_file_system)
    install_bundle(bundle, tmp_path / "repository")
    assert installed(tmp_path / "repository") == EXPECTED


def test_installing_twice_changes_nothing_and_leaves_nothing(bundle, tmp_path):
    for _ in range(2):
        install_bundle(bundle, tmp_path / "repository")
    assert installed(tmp_path / "repository") == EXPECTED


def test_what_an_earlier_bundle_left_is_removed(bundle, tmp_path):
    install_bundle(bundle, tmp_path / "repository")
    (tmp_path / "repository" / "beam_retrieval" / "1" / "layer7.indptr.npy").write_bytes(b"old")
    install_bundle(bundle, tmp_path / "repository")
    assert installed(tmp_path / "repository") == EXPECTED


def test_configurations_that_were_changed_there_stay(bundle, tmp_path):
    config = tmp_path / "repository" / "beam_retrieval" / "config.pbtxt"
    config.parent.mkdir(parents=True)
    config.write_text("mine")
    install_bundle(bundle, tmp_path / "repository")
    assert config.read_text() == "mine"


def test_external_data_keeps_its_name(bundle, tmp_path):
    manifest = json.loads((bundle / "manifest.json").read_text())
    (bundle / "scorer.onnx.data").write_bytes(b"weights")
    write_manifest(bundle, manifest, [*manifest["files"], "scorer.onnx.data"])
    install_bundle(bundle, tmp_path / "repository")
    assert (tmp_path / "repository" / "scorer" / "1" / "scorer.onnx.data").read_bytes() == b"weights"
    assert not (tmp_path / "repository" / "user_encoder" / "1" / "scorer.onnx.data").exists()


def test_a_bundle_without_onnx_files_says_what_to_run(tmp_path):
    bundle = tiny_bundle.make_bundle(tmp_path / "bundle", onnx_files=False).path
    with pytest.raises(BundleError, match=r"has no user_encoder\.onnx; run `nann index` and `nann export`"):
        install_bundle(bundle, tmp_path / "repository")
    assert not (tmp_path / "repository").exists()


def test_a_missing_or_changed_bundle_is_refused(bundle, tmp_path):
    with pytest.raises(BundleError, match="is not a bundle"):
        install_bundle(tmp_path / "nowhere", tmp_path / "repository")
    content = bytearray((bundle / "levels.npy").read_bytes())
    content[-1] ^= 1
    (bundle / "levels.npy").write_bytes(content)
    with pytest.raises(BundleError, match=r"levels\.npy has sha256 .* the file was changed"):
        install_bundle(bundle, tmp_path / "repository")
    assert not (tmp_path / "repository").exists()


def test_versions_start_at_one(bundle, tmp_path):
    with pytest.raises(BundleError, match="version is 0; expected at least 1"):
        install_bundle(bundle, tmp_path / "repository", version=0)


def test_the_default_repository(monkeypatch, tmp_path):
    assert default_repository() == TEMPLATE
    monkeypatch.setattr(repository_module, "TEMPLATE", tmp_path / "site-packages" / "model_repository")
    assert default_repository() == Path("build") / "model_repository"


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
    assert (repository / "scorer" / "1" / "model.plan").read_bytes() == b"scorer"
    assert (repository / "user_encoder" / "1" / "model.plan").read_bytes() == b"user_encoder"


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


def test_the_scorer_in_half_precision_is_installed_beside_the_other(bundle, tmp_path):
    manifest = json.loads((bundle / "manifest.json").read_text())
    for name in ("scorer.fp16.onnx", "scorer.fp16.onnx.data"):
        (bundle / name).write_bytes(name.encode())
        manifest["files"][name] = {}
    write_manifest(bundle, manifest, manifest["files"])
    install_bundle(bundle, tmp_path / "repository")
    names = {"model.fp16.onnx", "scorer.fp16.onnx.data"}
    assert installed(tmp_path / "repository")["scorer"] == EXPECTED["scorer"] | names
    assert installed(tmp_path / "repository")["user_encoder"] == EXPECTED["user_encoder"]
