import json
import os
import shutil
from pathlib import Path

import pytest
import tiny_bundle

from nann.errors import BundleError, ConfigError
from python_backend import repository as repository_module
from python_backend.repository import TEMPLATE, check_target, default_repository, install_bundle

GRAPH = {f"layer{n}.{part}.npy" for n in (0, 1) for part in ("indptr", "neighbors")} | {"levels.npy"}
EXPECTED = {
    "nann": set(),
    "feature_transform": {"model.py", "manifest.json", "item_ids.npy"},
    "user_encoder": {"model.py", "manifest.json", "model.onnx"},
    "beam_retrieval": {"model.py", "manifest.json", "item_ids.npy", *GRAPH},
    "scorer": {"model.py", "manifest.json", "model.onnx"},
}


def installed(repository: Path, version: int = 1) -> dict[str, set[str]]:
    return {model: {path.name for path in (repository / model / str(version)).iterdir()} for model in EXPECTED}


@pytest.fixture
def bundle(tmp_path):
    return tiny_bundle.make_bundle(tmp_path / "bundle").path


def test_each_model_gets_what_it_needs(bundle, tmp_path):
    install_bundle(bundle, tmp_path / "repository")
    assert installed(tmp_path / "repository") == EXPECTED
    hand_written = {path.relative_to(TEMPLATE) for path in TEMPLATE.rglob("*.pbtxt")}
    copied = {path.relative_to(tmp_path / "repository") for path in (tmp_path / "repository").rglob("*.pbtxt")}
    assert copied == hand_written


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
    from nann.bundle import write_manifest

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


def test_targets_are_checked():
    check_target(TEMPLATE, "embedded")
    check_target(TEMPLATE, "onnxruntime")
    with pytest.raises(ConfigError, match="target is 'gpu'; user_encoder has configurations for embedded, onnxruntime"):
        check_target(TEMPLATE, "gpu")
