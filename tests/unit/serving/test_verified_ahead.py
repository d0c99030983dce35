"""The files of the current version are hashed by the process that starts Triton, and by none of Triton's again."""

from __future__ import annotations

import shutil
from contextlib import closing

import pytest
from support import native_bundle

from nann import manifest
from nann.bundle import Bundle
from nann.errors import BundleError
from nann.found_once import FOLDER_VARIABLE
from nann.python_backend.engines.choose import open_scorer
from nann.python_backend.repository.install import install_bundle, install_if_new
from nann.python_backend.server.verified_ahead import VerifiedAhead


@pytest.fixture
def bundle(tmp_path):
    return native_bundle.make_bundle(tmp_path / "bundle")


@pytest.fixture
def found(tmp_path):
    return tmp_path / "found"


def test_the_processes_hash_nothing_again(bundle, found, tmp_path, monkeypatch):
    repository = tmp_path / "repository"
    install_bundle(bundle.path, repository)
    with closing(VerifiedAhead(repository, found)) as files:
        files.check(wait=True)
    monkeypatch.setenv(FOLDER_VARIABLE, str(found))
    monkeypatch.setattr(manifest, "sha256_of", lambda path: pytest.fail(f"{path} is hashed again"))
    open_scorer(repository / "scorer" / "1", "auto")
    for model in ("feature_transform", "beam_retrieval"):
        folder = repository / model / "1"
        Bundle.open(folder, [name for name in bundle.manifest["files"] if (folder / name).exists()])


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda path: path.write_bytes(b"?" + path.read_bytes()[1:]), "model.onnx has sha256"),
        (lambda path: path.write_bytes(path.read_bytes()[1:]), r"model.onnx has \d+ bytes; the manifest says"),
        (lambda path: path.unlink(), "model.onnx is missing"),
    ],
    ids=["changed", "truncated", "missing"],
)
def test_a_damaged_file_is_named(bundle, found, tmp_path, spoil, reason):
    shutil.copytree(bundle.path, tmp_path / "other")
    install_bundle(tmp_path / "other", tmp_path / "repository")
    spoil(tmp_path / "repository" / "user_encoder" / "1" / "model.onnx")
    with closing(VerifiedAhead(tmp_path / "repository", found)) as files, pytest.raises(BundleError, match=reason):
        files.check(wait=True)


def test_a_repository_without_a_version_has_nothing_to_compare(found, tmp_path):
    with closing(VerifiedAhead(tmp_path / "repository", found)) as files:
        files.check(wait=True)


def test_of_a_bundle_that_is_a_version_only_the_manifest_is_read(bundle, tmp_path, monkeypatch):
    repository = tmp_path / "repository"
    assert install_if_new(bundle.path, repository) == 1
    monkeypatch.setattr(manifest, "sha256_of", lambda path: pytest.fail(f"{path} is hashed"))
    assert install_if_new(bundle.path, repository) == 1
