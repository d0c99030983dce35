"""The parts of deploys that need no server."""

import threading

import numpy as np
import pytest
from support import tiny_bundle

from nann.errors import BundleError, ConfigError, DeployError
from nann.python_backend.repository import deploy as deployment
from nann.python_backend.repository.answer_check import Answers, compare
from nann.python_backend.repository.deploy import rollback_offline
from nann.python_backend.repository.install import current_bundle, install_bundle, install_if_new
from nann.python_backend.repository.versions import (
    live_versions,
    locked,
    models_locked,
    prune,
    set_live,
)
from nann.python_backend.server.admin_key import read_admin_key
from nann.python_backend.server.control import ModelState
from nann.python_backend.version_folder import check_same_bundle
from nann.python_backend.version_history import Versions, release_path
from nann.signature import BEAM_RETRIEVAL, MODELS


@pytest.fixture
def repository(tmp_path):
    """A repository with versions 1, 2 and 3; the last one is current."""
    for number in (1, 2, 3):
        install_bundle(
            tiny_bundle.make_bundle(tmp_path / f"b{number}", sequence_length=4 + number).path, tmp_path / "r"
        )
    return tmp_path / "r"


def test_a_rollback_returns_to_what_was_current_before(repository, tmp_path):
    assert rollback_offline(repository) == 2
    assert install_if_new(tmp_path / "b3", repository) == 2, "its bundle is known"
    assert current_bundle(repository).sequence_length == 6
    install_bundle(tiny_bundle.make_bundle(tmp_path / "b4", sequence_length=9).path, repository)
    assert Versions.read(repository).history == (1, 2, 4), "the number 3 is not used again"
    assert rollback_offline(repository) == 2
    assert rollback_offline(repository) == 1
    with pytest.raises(DeployError, match=r"there is no earlier version to return to; .*: none"):
        rollback_offline(repository)


def test_a_rollback_to_a_named_version(repository):
    with pytest.raises(DeployError, match=r"there is no version 3 to return to; earlier versions in .*: 1, 2"):
        rollback_offline(repository, 3)
    assert rollback_offline(repository, 1) == 1


def test_old_versions_go_and_the_current_one_stays(repository):
    versions = prune(repository, Versions.read(repository), keep=2)
    assert versions.history == (2, 3) == Versions.read(repository).history
    assert not release_path(repository, 1).exists()
    assert prune(repository, versions, keep=0).history == (3,)
    assert release_path(repository, 3).exists()


def test_a_start_keeps_what_a_deploy_kept(repository, tmp_path):
    install_bundle(tiny_bundle.make_bundle(tmp_path / "b4", sequence_length=9).path, repository)
    install_if_new(tmp_path / "b4", repository)
    assert Versions.read(repository).history == (1, 2, 3, 4)
    install_if_new(tiny_bundle.make_bundle(tmp_path / "b5", sequence_length=10).path, repository)
    assert Versions.read(repository).history == (3, 4, 5)


def test_one_command_at_a_time(repository):
    with (
        locked(repository),
        pytest.raises(DeployError, match="another command is changing the versions"),
        locked(repository),
    ):
        pass


def test_a_versions_file_of_something_else(repository):
    for text in ("{", "[]", '{"format_version": 9}', '{"format_version": 1}'):
        (repository / ".versions" / "versions.json").write_text(text)
        with pytest.raises(DeployError, match=r"versions\.json can't be read"):
            Versions.read(repository)


def test_graph_and_scorer_of_different_bundles(repository):
    check_same_bundle(repository / "beam_retrieval", 3)
    manifest = repository / "scorer" / "3" / "manifest.json"
    text = manifest.read_text()
    manifest.unlink()
    with pytest.raises(BundleError, match=r"scorer/3/manifest\.json is missing"):
        check_same_bundle(repository / "beam_retrieval", 3)
    manifest.write_text(text.replace("7", "8"))
    with pytest.raises(BundleError, match="are from different bundles"):
        check_same_bundle(repository / "beam_retrieval", 3)


def test_the_admin_key(tmp_path, monkeypatch):
    monkeypatch.delenv("NANN_ADMIN_KEY", raising=False)
    assert read_admin_key(None) is None
    monkeypatch.setenv("NANN_ADMIN_KEY", "fromtheenvironment")
    assert read_admin_key(None) == "fromtheenvironment"
    path = tmp_path / "key"
    path.write_text("abc123\n")
    path.chmod(0o600)
    assert read_admin_key(path) == "abc123"
    path.chmod(0o640)
    with pytest.raises(ConfigError, match=r"other users may read it; run `chmod 600 "):
        read_admin_key(path)
    path.chmod(0o600)
    path.write_text("a:b")
    with pytest.raises(ConfigError, match="characters other than letters and digits"):
        read_admin_key(path)
    path.write_text("\n")
    with pytest.raises(ConfigError, match="an empty admin key; `openssl rand -hex 16` makes one"):
        read_admin_key(path)
    monkeypatch.setenv("NANN_ADMIN_KEY", "")
    with pytest.raises(ConfigError, match="the environment variable NANN_ADMIN_KEY holds an empty"):
        read_admin_key(None)
    with pytest.raises(ConfigError, match=r"can't be read: .*No such file"):
        read_admin_key(tmp_path / "nowhere")


EXPECTED = Answers(np.array([[1, 2, 3, 4, 5, 6, 7, 8, 9, -1]]), np.array([[*range(9, 0, -1), -np.inf]], np.float32))


def answers(ids, scores) -> Answers:
    return Answers(np.array([ids]), np.array([scores], np.float32))


def test_a_version_is_compared_with_its_files():
    compare(EXPECTED, EXPECTED, 2)
    swapped = answers([1, 2, 3, 4, 5, 6, 7, 9, 8, -1], [9, 8, 7, 6, 5, 4, 3, 1, 2, -np.inf])
    compare(swapped, EXPECTED, 2)
    one_other = answers([1, 2, 3, 4, 5, 6, 7, 8, 10, -1], EXPECTED.scores[0])
    compare(one_other, EXPECTED, 2)
    with pytest.raises(DeployError, match="version 2 does not answer as its files say: it returned 8 of the 10 items"):
        compare(answers([11, 12, 3, 4, 5, 6, 7, 8, 9, -1], EXPECTED.scores[0]), EXPECTED, 2)
    for wrong in (8.0, np.nan):
        with pytest.raises(
            DeployError, match="version 2 does not score as its files say: test user 0 has scores that differ by up to"
        ):
            compare(answers(EXPECTED.item_ids[0], [wrong, *EXPECTED.scores[0][1:]]), EXPECTED, 2)


class StuckControl:
    """A server whose beam_retrieval version 2 never leaves the state it is in."""

    def __init__(self, state):
        self.stuck = ModelState("beam_retrieval", 2, state, "")
        self.loads = []

    def states(self):
        ready = [ModelState(spec.name, 2, "READY", "") for spec in MODELS if spec is not BEAM_RETRIEVAL]
        return [self.stuck, *ready] if self.stuck.state == "LOADING" else [self.stuck]

    def config(self, model):
        return {"ensemble_scheduling": {"step": [{}, {}, {}]}}

    def loaded_versions(self, model):
        return {2, 3} if model == "beam_retrieval" else {3}

    def load(self, model):
        self.loads.append(model)


def test_a_version_that_does_not_unload_keeps_nothing_else_from_it(repository):
    set_live(repository, {2, 3})
    control = StuckControl("UNLOADING")
    message = "version 3 answers, but beam_retrieval did not unload the version before within 0 s; the next deploy"
    with pytest.raises(DeployError, match=message):
        deployment._retire(repository, control, 3, 0.1)
    assert control.loads == ["beam_retrieval"]
    assert live_versions(repository) == {3}


def test_a_version_that_does_not_end_to_load_is_not_taken(repository, monkeypatch):
    monkeypatch.setattr(deployment, "_SETTLE_TIMEOUT_S", 0.1)
    with pytest.raises(DeployError, match="beam_retrieval did not load version 2: LOADING"):
        deployment._check_loaded(StuckControl("LOADING"), 2)


def test_loads_of_a_deploy_wait_for_those_of_the_server(repository):
    control, loaded = StuckControl("READY"), threading.Event()

    def load():
        deployment._load(repository, control, "scorer")
        loaded.set()

    with models_locked(repository):
        thread = threading.Thread(target=load)
        thread.start()
        assert not loaded.wait(0.3)
        assert control.loads == []
    thread.join()
    assert control.loads == ["scorer"]
