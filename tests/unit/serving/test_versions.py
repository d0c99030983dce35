"""The parts of deploys and of the stub supervisor that need no server."""

import os
import subprocess
import sys

import numpy as np
import pytest
from support import tiny_bundle
from support.waiting import wait_until

from nann.errors import BundleError, ConfigError, DeployError, ServerError
from nann.python_backend.repository.answer_check import Answers, compare
from nann.python_backend.repository.deploy import rollback_offline
from nann.python_backend.repository.install import current_bundle, install_bundle, install_if_new
from nann.python_backend.repository.versions import Versions, locked, prune, release_path
from nann.python_backend.server import stub_supervisor
from nann.python_backend.server.admin_key import read_admin_key
from nann.python_backend.server.stub_supervisor import StubSupervisor, child_processes
from nann.python_backend.version_folder import check_same_bundle


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


def test_what_dies_and_is_not_waited_for_is_seen():
    code = "import os, time; pid = os.fork(); (pid == 0) and os._exit(0); print(pid, flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        child = int(parent.stdout.readline())
        wait_until(lambda: child_processes(parent.pid).get(child))
        assert child_processes(parent.pid) == {child: True}
        parent.kill()
    assert child_processes(parent.pid) == {}


class Control:
    """Fails a given number of times."""

    def __init__(self, failures=0):
        self.failures, self.loads = failures, 0

    def load(self, model):
        self.loads += 1
        if self.loads <= self.failures:
            raise ServerError("no")


@pytest.fixture
def watch(repository, monkeypatch):
    """A supervisor whose processes come from a dict: pid -> dead. The test moves its clock."""
    processes, clock, words = {}, [1000.0], []
    monkeypatch.setattr(stub_supervisor, "child_processes", lambda _: dict(processes))
    monkeypatch.setattr(stub_supervisor, "_command_line", lambda _: "stub /r/scorer/3/model.py nann-triton-")
    monkeypatch.setattr(stub_supervisor.time, "monotonic", lambda: clock[0])

    def look(control, seconds=1.0):
        supervisor.control = control
        clock[0] += seconds
        supervisor.check()

    supervisor = StubSupervisor(1, repository, Control(), words.append)
    return processes, words, look


def test_a_stub_that_stays_dead_is_revived_once(watch, repository):
    processes, words, look = watch
    control = Control()
    processes[7] = False
    look(control)
    processes[7] = True
    before = os.stat(repository / "scorer" / "3").st_mtime_ns
    look(control)
    assert control.loads == 0, "it may be ending in order"
    look(control)
    assert control.loads == 1
    assert os.stat(repository / "scorer" / "3").st_mtime_ns > before, "else Triton would not load it again"
    assert words == ["the process of scorer version 3 died; it was loaded again in 0.0 s"]
    for _ in range(3):
        look(control)
    assert control.loads == 1


def test_a_stub_that_died_before_it_was_looked_at_is_revived_too(watch):
    processes, words, look = watch
    control = Control()
    processes[7] = False
    look(control)
    processes[7] = True
    look(control)
    look(control)
    assert control.loads == 1
    processes[8] = True  # the reloaded process died between two checks, so its model is unknown
    for _ in range(3):
        look(control, seconds=2.0)
    assert control.loads == 2
    assert words[1] == "the process of scorer version 3 died; it was loaded again in 0.0 s"
    processes[9] = False
    for _ in range(3):
        look(control, seconds=2.0)
    processes[10] = True  # of a model that was never loaded
    for _ in range(3):
        look(control, seconds=2.0)
    assert control.loads == 2


def test_a_stub_of_a_version_that_went_is_let_go(watch, repository):
    processes, _, look = watch
    control = Control()
    processes[7] = False
    look(control)
    (repository / "scorer" / "3").unlink()
    processes[7] = True
    for _ in range(3):
        look(control)
    assert control.loads == 0


def test_a_model_that_does_not_come_back_is_tried_ever_more_rarely(watch):
    processes, words, look = watch
    control = Control(failures=10**9)
    processes[7] = False
    look(control)
    processes[7] = True
    for _ in range(100):
        look(control)
    assert 5 <= control.loads <= 9
    assert "the next try is in 2 s" in words[1]
    assert "the next try is in 30 s" in words[-1]
