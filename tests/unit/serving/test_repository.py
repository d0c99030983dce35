import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from support import golden, tiny_bundle

from nann import durable_files
from nann.bundle import Bundle, write_manifest
from nann.errors import BundleError, ConfigError
from nann.python_backend.repository import configs as configurations
from nann.python_backend.repository.configs import hand_written
from nann.python_backend.repository.deploy import rollback_offline
from nann.python_backend.repository.install import current_bundle, install_bundle, install_if_new
from nann.python_backend.server.repository_lock import repository_lock
from nann.python_backend.version_folder import TEMPLATE
from nann.python_backend.version_history import Versions

GRAPH = {f"layer{n}.{part}.npy" for n in (0, 1) for part in ("indptr", "neighbors")} | {"levels.npy"}
EXPECTED = {
    "nann": set(),
    "feature_transform": {"model.py", "manifest.json", "item_ids.npy"},
    "user_encoder": {"model.py", "torch_model.py", "manifest.json", "model.onnx"},
    "beam_retrieval": {"model.py", "torch_model.py", "manifest.json", "item_ids.npy", *GRAPH},
    "scorer": {"model.py", "torch_model.py", "manifest.json", "model.onnx"},
}


def installed(repository: Path, version: int = 1) -> dict[str, set[str]]:
    folders = {model: repository / model / str(version) for model in EXPECTED}
    return {model: {path.name for path in folder.iterdir()} - {"__pycache__"} for model, folder in folders.items()}


def live(repository: Path) -> set[str]:
    """The versions that Triton sees; they are the same for every model."""
    (names,) = {frozenset(path.name for path in (repository / model).glob("[0-9]*")) for model in EXPECTED}
    return set(names)


@pytest.fixture
def bundle(tmp_path):
    return tiny_bundle.make_bundle(tmp_path / "bundle").path


def test_each_model_gets_what_it_needs(bundle, tmp_path):
    install_bundle(bundle, tmp_path / "repository")
    assert installed(tmp_path / "repository") == EXPECTED
    written = {path.relative_to(TEMPLATE) for path in hand_written(TEMPLATE)}
    copied = {path.relative_to(tmp_path / "repository") for path in (tmp_path / "repository").rglob("*.pbtxt")}
    forms = ("one_step", "two_steps")
    targets = ("embedded", "onnxruntime", "tensorrt", "torch")
    pinned = {Path(f"nann/configs/{name}.pbtxt") for name in (*targets, *forms)}
    made = {Path(f"beam_retrieval/configs/{name}.pbtxt") for name in ("torch", *forms)}
    assert copied == written | pinned | made | {Path("scorer/configs/two_steps.pbtxt")}


def other_bundle(path: Path) -> Path:
    return tiny_bundle.make_bundle(path, sequence_length=9).path


def test_another_bundle_is_the_next_version_and_the_one_that_is_served(bundle, tmp_path):
    repository = tmp_path / "repository"
    install_bundle(bundle, repository)
    install_bundle(other_bundle(tmp_path / "other"), repository)
    assert live(repository) == {"2"}
    assert installed(repository, 2) == EXPECTED
    assert current_bundle(repository).sequence_length == 9
    assert (repository / ".versions" / "1" / "scorer" / "model.onnx").exists(), "kept for a rollback"
    install_bundle(bundle, repository)
    assert live(repository) == {"1"}, "it is there already"


def test_every_step_of_the_ensemble_asks_for_the_current_version(bundle, tmp_path):
    install_bundle(bundle, tmp_path / "repository", version=7)
    assert live(tmp_path / "repository") == {"7"}
    for target in ("embedded", "tensorrt"):
        text = (tmp_path / "repository" / "nann" / "configs" / f"{target}.pbtxt").read_text()
        assert text.count("model_version: 7") == 3
        assert "model_version: -1" not in text
        assert "specific { versions: [ 7 ] }" in text


def test_a_version_never_changes(bundle, tmp_path):
    repository = tmp_path / "repository"
    install_bundle(bundle, repository)
    with pytest.raises(BundleError, match=r"version 1 is another bundle .*: choose another number, such as 2"):
        install_bundle(other_bundle(tmp_path / "other"), repository, version=1)
    assert live(repository) == {"1"}


def test_a_restart_serves_what_was_deployed_last_and_a_bundle_that_it_does_not_know(bundle, tmp_path):
    repository, other = tmp_path / "repository", other_bundle(tmp_path / "other")
    assert install_if_new(bundle, repository) == 1
    assert install_if_new(other, repository) == 2
    assert install_if_new(bundle, repository) == 2, "the first start's --bundle"
    assert install_if_new(tiny_bundle.make_bundle(tmp_path / "third", sequence_length=5).path, repository) == 3


def test_a_start_writes_nothing_that_is_there(bundle, tmp_path):
    """It must work on a full disk and on one that is mounted read-only."""
    repository = tmp_path / "repository"
    install_if_new(bundle, repository)
    lock = repository / ".versions" / ".served"

    def state() -> dict[Path, tuple[int, int]]:
        stats = {path: path.lstat() for path in [repository, *repository.rglob("*")] if path != lock}
        return {path: (stat.st_ino, stat.st_mtime_ns) for path, stat in stats.items()}

    before = state()
    assert install_if_new(bundle, repository) == 1
    assert state() == before


def test_a_repository_in_use_is_not_changed(bundle, tmp_path):
    repository, other = tmp_path / "repository", other_bundle(tmp_path / "other")
    install_bundle(bundle, repository)
    refused = r"repository is in use by process \d+ \(a server\); stop that process first, or use `nann deploy` and"
    with repository_lock(repository, "a server"):
        for change in (
            lambda: install_bundle(other, repository),
            lambda: install_if_new(other, repository),
            lambda: install_if_new(bundle, repository),
            lambda: rollback_offline(repository),
        ):
            with pytest.raises(ConfigError, match=refused):
                change()
    assert live(repository) == {"1"}
    assert install_if_new(other, repository) == 2


def test_what_was_interrupted_is_cleared_away_before_a_start(bundle, tmp_path):
    repository = tmp_path / "repository"
    install_bundle(bundle, repository)
    store = repository / ".versions"
    shutil.copytree(store / "1", store / ".tmp-2")
    shutil.copytree(store / "1", store / "3")
    for model in EXPECTED:
        (repository / model / "3").symlink_to(Path("..") / ".versions" / "3" / model)
    (repository / "nann" / "configs" / "embedded.pbtxt").write_text("half of i")
    assert install_if_new(bundle, repository) == 1
    assert live(repository) == {"1"}
    assert {path.name for path in store.iterdir() if path.is_dir()} == {"1"}
    assert "model_version: 1\n" in (repository / "nann" / "configs" / "embedded.pbtxt").read_text()


def test_a_note_makes_no_version_and_changes_no_version(bundle, tmp_path):
    repository = tmp_path / "repository"
    Bundle.open(bundle).note(metrics={"test": {"coverage": 0.5}})
    assert install_if_new(bundle, repository) == 1
    Bundle.open(bundle).note(metrics={"test": {"coverage": 0.9}})
    assert install_if_new(bundle, repository) == 1
    install_bundle(bundle, repository)
    assert live(repository) == {"1"}
    assert current_bundle(repository).notes == {"metrics": {"test": {"coverage": 0.5}}}, "as when it was installed"
    Bundle.open(bundle).change(search={"top_k": 4, "ef": [4, 6], "rounds": [1, 9]})
    assert install_if_new(bundle, repository) == 2


def test_a_note_in_the_manifest_of_an_older_bundle_makes_no_version(tmp_path):
    path, repository = shutil.copytree(golden.BUNDLE, tmp_path / "bundle"), tmp_path / "repository"
    assert install_if_new(path, repository) == 1
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["metrics"]["test"]["coverage"] = 0.25
    (path / "manifest.json").write_text(json.dumps(manifest))
    assert install_if_new(path, repository) == 1


def test_files_are_linked(bundle, tmp_path):
    install_bundle(bundle, tmp_path / "repository")
    ids = tmp_path / "repository" / "feature_transform" / "1" / "item_ids.npy"
    assert os.path.samefile(ids, bundle / "item_ids.npy")


def test_files_are_copied_where_they_cant_be_linked(bundle, tmp_path, monkeypatch):
    def other_file_system(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(durable_files.os, "link", other_file_system)
    install_bundle(bundle, tmp_path / "repository")
    assert installed(tmp_path / "repository") == EXPECTED


def test_installing_twice_changes_nothing_and_leaves_nothing(bundle, tmp_path):
    for _ in range(2):
        install_bundle(bundle, tmp_path / "repository")
    assert installed(tmp_path / "repository") == EXPECTED


def test_configurations_that_were_changed_there_stay(bundle, tmp_path):
    config = tmp_path / "repository" / "beam_retrieval" / "config.pbtxt"
    config.parent.mkdir(parents=True)
    config.write_text("mine")
    install_bundle(bundle, tmp_path / "repository")
    assert config.read_text() == "mine"


def test_configurations_that_were_not_follow_the_template(bundle, tmp_path, monkeypatch):
    older = Path(shutil.copytree(TEMPLATE, tmp_path / "template", ignore=shutil.ignore_patterns("__pycache__")))
    config = tmp_path / "repository" / "beam_retrieval" / "config.pbtxt"
    with monkeypatch.context() as patch:
        patch.setattr(configurations, "TEMPLATE", older)
        (older / "beam_retrieval" / "config.pbtxt").write_text("older")
        install_bundle(bundle, tmp_path / "repository")
        assert config.read_text() == "older"
    install_bundle(bundle, tmp_path / "repository")
    assert config.read_text() == (TEMPLATE / "beam_retrieval" / "config.pbtxt").read_text()


def test_the_template_itself_is_no_repository(bundle):
    with pytest.raises(ConfigError, match="holds the hand-written files; choose another folder"):
        install_bundle(bundle, TEMPLATE)


def test_a_version_folder_of_somebody_else_is_refused(bundle, tmp_path):
    (tmp_path / "repository" / "scorer" / "1").mkdir(parents=True)
    with pytest.raises(ConfigError, match="scorer/1 was not installed by this release of nann; remove it"):
        install_bundle(bundle, tmp_path / "repository")


def test_a_repository_without_versions_and_no_bundle(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BundleError, match="build/bundle is not a bundle"):
        install_if_new(None, tmp_path / "repository")


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


def test_a_bundle_of_nonsense_is_not_installed(tmp_path):
    """Its hashes are right; a server would load it and answer with padding as if it were an item."""
    bundle = tiny_bundle.make_bundle(tmp_path / "bundle")
    ids = bundle.item_ids - 100
    (bundle.path / "item_ids.npy").unlink()
    np.save(bundle.path / "item_ids.npy", ids)
    bundle.change(written=["item_ids.npy"])
    with pytest.raises(BundleError, match=r"item_ids.npy begins with 0; expected positive ids"):
        install_bundle(bundle.path, tmp_path / "repository")
    assert Versions.read(tmp_path / "repository").current is None


def test_searches_beyond_the_servers_bounds_are_installed_where_these_were_raised(tmp_path):
    bundle = tiny_bundle.make_bundle(tmp_path / "bundle", search={"top_k": 3, "ef": [3, 4001], "rounds": [1, 8]})
    repository = tmp_path / "repository"
    with pytest.raises(
        BundleError, match="recommends 4001 where the server's max_ef is 4000; recommend less, or raise"
    ):
        install_bundle(bundle.path, repository)
    config = repository / "beam_retrieval" / "config.pbtxt"
    config.write_text(config.read_text().replace('"4000"', '"5000"'))
    install_bundle(bundle.path, repository)
    assert Versions.read(repository).current == 1
