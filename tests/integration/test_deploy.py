"""`nann deploy` and `nann rollback` on a live server under constant load."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from support.live_bundle import item_ids, make_bundle
from support.own_server import server_options
from support.ports import free_ports
from support.under_load import MIXED, Load, asked_for_readiness

from nann.bundle import Bundle, write_manifest
from nann.clients import RetrievalClient
from nann.errors import BundleError, ConfigError, DeployError, ServerUnavailable
from nann.python_backend.repository import deploy as deployment
from nann.python_backend.repository.deploy import deploy, rollback_online
from nann.python_backend.repository.install import install_bundle, install_if_new
from nann.python_backend.server.control import ModelControl
from nann.python_backend.server.triton import TritonServer
from nann.python_backend.version_history import Versions
from nann.signature import MODELS

pytestmark = pytest.mark.triton

KEY = "0123abc"
NANN = [sys.executable, "-m", "nann"]


@pytest.fixture(scope="module")
def bundles(live_bundle_path, tmp_path_factory):
    """Two bundles whose answers differ for every user."""
    other = make_bundle(tmp_path_factory.mktemp("other") / "bundle", seed=2)
    return {"first": Bundle.open(live_bundle_path), "second": other}


@pytest.fixture(scope="module")
def versioned(bundles, tmp_path_factory):
    folder = tmp_path_factory.mktemp("versioned")
    install_bundle(bundles["first"].path, folder / "repository")
    with TritonServer(server_options(folder, admin_key=KEY)) as server:
        yield server


@pytest.fixture
def server(versioned, bundles):
    """The live server, with the first bundle as its current version."""
    back_to_first(versioned, bundles)
    yield versioned
    back_to_first(versioned, bundles)


def back_to_first(server, bundles):
    repository = server.options.repository
    if served(server) != answer_of(bundles["first"]):
        deploy(bundles["first"].path, repository, server.control)


def served(server) -> list[int]:
    with RetrievalClient(server.grpc_url, timeout_s=20) as client:
        return client.retrieve(item_ids()[20:26]).item_ids[0].tolist()


def named_bundle(server) -> str | None:
    with RetrievalClient(server.http_url, "http", timeout_s=20) as client:
        return client.bundle_id()


def answer_of(bundle) -> list[int]:
    from support.reference import OfflineEnsemble

    return OfflineEnsemble(bundle).retrieve(item_ids()[20:26].tolist())[0].tolist()


def on_disk(server) -> dict:
    """All files in the repository that decide what is served."""
    repository = server.options.repository
    links = {str(path): os.readlink(path) for spec in MODELS for path in (repository / spec.name).glob("[0-9]*")}
    texts = {str(path): path.read_text() for path in repository.glob("*/configs/*.pbtxt")}
    return {**links, **texts, "versions": Versions.read(repository)}


def versions_on_disk(server) -> set[str]:
    return {path.name for path in (server.options.repository / ".versions").iterdir() if path.is_dir()}


@pytest.mark.parametrize("changes", [3, pytest.param(20, marks=[pytest.mark.slow, pytest.mark.timeout(1800)])])
def test_no_request_fails_and_every_answer_is_entirely_of_one_version(server, bundles, changes):
    """Alternates deploys and rollbacks."""
    repository, done = server.options.repository, []
    with Load(server.grpc_url, bundles) as load:
        for number in range(changes):
            if number % 2:
                done.append(rollback_online(repository, server.control))
            else:
                done.append(deploy(bundles["second"].path, repository, server.control))
            load.more()
            assert load.times_s[-1][1] == ("first" if number % 2 else "second")
    assert load.failures == []
    assert load.answers[MIXED] == 0
    assert min(load.answers["first"], load.answers["second"]) > 0
    loads, switches = [change.load_s for change in done], [change.switch_ms for change in done]
    print(
        f"\n{changes} deploys and rollbacks, {sum(load.answers.values())} requests, 0 failed, 0 mixed; loaded and "
        f"compared in {np.median(loads):.1f} s, changed in {np.median(switches):.0f} ms (medians)"
    )


def spoil_truncate(path):
    content = (path / "layer0.neighbors.npy").read_bytes()
    rewrite(path / "layer0.neighbors.npy", content[: len(content) // 2])


def spoil_flip(path):
    content = bytearray((path / "scorer.onnx").read_bytes())
    content[len(content) // 2] ^= 4
    rewrite(path / "scorer.onnx", bytes(content))


def rewrite(path, content):
    path.unlink()  # it may be linked into a repository
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (spoil_truncate, r"layer0\.neighbors\.npy has \d+ bytes; the manifest says"),
        (spoil_flip, r"scorer\.onnx has sha256 .*the file was changed"),
        (lambda path: (path / "item_ids.npy").unlink(), r"item_ids\.npy is missing"),
        (lambda path: rewrite(path / "manifest.json", b'{"format_version"'), r"manifest\.json is not JSON"),
    ],
    ids=["truncated", "bit flipped", "missing", "manifest truncated"],
)
def test_a_damaged_bundle_is_refused_before_anything_changes(server, bundles, tmp_path, spoil, message):
    bundle = Path(shutil.copytree(bundles["second"].path, tmp_path / "bundle"))
    spoil(bundle)
    before, versions = on_disk(server), versions_on_disk(server)
    with pytest.raises(BundleError, match=message):
        deploy(bundle, server.options.repository, server.control)
    assert on_disk(server) == before
    assert versions_on_disk(server) == versions


def with_other_scorer(bundle, path, change) -> Path:
    """A complete bundle with another scorer."""
    shutil.copytree(bundle.path, path)
    model = onnx.load(path / "scorer.onnx")
    change(model)
    rewrite(path / "scorer.onnx", model.SerializeToString())
    write_manifest(path, bundle.manifest, bundle.manifest["files"])
    return path


def lose_the_table(model):
    (table,) = (tensor for tensor in model.graph.initializer if tensor.name == "table")
    table.CopyFrom(numpy_helper.from_array(np.zeros((1, 3), np.float32), "table"))


def test_a_bundle_that_does_not_load_is_undone_and_nobody_notices(server, bundles, tmp_path):
    bundle = with_other_scorer(bundles["second"], tmp_path / "bundle", lose_the_table)
    before = on_disk(server)
    with Load(server.grpc_url, bundles) as load, asked_for_readiness(server) as ready:
        with pytest.raises(DeployError, match=r"load failed for model 'scorer'.*`nann export` again; version \d+"):
            deploy(bundle, server.options.repository, server.control)
        load.more()
        with RetrievalClient(server.grpc_url) as client:
            assert client.is_ready()
    assert set(ready) == {True}, "while a version loads, and after one did not"
    assert load.failures == []
    assert set(load.answers) == {"first"}
    assert on_disk(server) == before


def test_a_version_whose_scorer_was_exchanged_is_refused(server, bundles, tmp_path, monkeypatch):
    """In a manipulated version folder, graph and scorer of different bundles never answer."""
    write_release = deployment.write_release

    def tampered(bundle, repository, version, plans):
        write_release(bundle, repository, version, plans)
        current = Versions.read(repository).current
        store = repository / ".versions"
        shutil.rmtree(store / str(version) / "scorer")
        shutil.copytree(store / str(current) / "scorer", store / str(version) / "scorer")

    monkeypatch.setattr(deployment, "write_release", tampered)
    new = make_bundle(tmp_path / "new", seed=3).path
    before = on_disk(server)
    with pytest.raises(
        DeployError, match=r"beam_retrieval did not load version \d+: .* are from different bundles.*still answers"
    ):
        deploy(new, server.options.repository, server.control)
    assert on_disk(server) == before
    assert served(server) == answer_of(bundles["first"])


CRASH = """
import os, sys
from pathlib import Path
from nann import durable_files
from nann.python_backend.repository import deploy as deployment
from nann.python_backend.server.control import ModelControl

bundle, repository, url, key, module, step = sys.argv[1:]
setattr({"deployment": deployment, "durable_files": durable_files}[module], step, lambda *_: os._exit(9))
deployment.deploy(Path(bundle), Path(repository), ModelControl(url, key))
"""


def test_a_deploy_that_is_killed_changes_no_answer_and_the_next_one_clears_up(server, bundles, tmp_path):
    """Killed before the version is complete, before Triton sees it, and between disk and server at the switch."""
    repository = server.options.repository
    new = make_bundle(tmp_path / "new", seed=4)
    for module, step in (("durable_files", "sync_tree"), ("deployment", "set_live"), ("deployment", "pin_ensemble")):
        arguments = [str(new.path), str(repository), server.http_url, KEY, module, step]
        done = subprocess.run([sys.executable, "-c", CRASH, *arguments], timeout=120, check=False)
        assert done.returncode == 9
        assert served(server) == answer_of(bundles["first"])
    assert Versions.read(repository).current != next(iter(server.control.ready_versions("nann")))
    with Load(server.grpc_url, {"first": bundles["first"], "new": new}) as load:
        deploy(new.path, repository, server.control)
        load.more()
    assert load.failures == []
    assert load.answers[MIXED] == 0
    assert served(server) == answer_of(new)
    assert not list((repository / ".versions").glob(".*/"))


LIMITED = "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY)); "


def test_a_deploy_that_can_not_write_changes_nothing(server, tmp_path):
    """Every write of the command fails, because its file size is limited."""
    repository = server.options.repository
    new = make_bundle(tmp_path / "new", seed=3).path
    before, versions = on_disk(server), versions_on_disk(server)
    code = LIMITED + "from nann.cli.main import main; sys.argv[0] = 'nann'; main()"
    arguments = ["deploy", str(new), "--repository", str(repository), "--url", server.http_url]
    environment = {**os.environ, "NANN_ADMIN_KEY": KEY}
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 2, done.stderr
    assert "can't be written" in done.stderr
    assert "File too large; nothing was changed" in done.stderr
    assert "Traceback" not in done.stderr
    assert on_disk(server) == before
    assert versions_on_disk(server) == versions


FULL_DISK = """
import sys
from pathlib import Path
from nann.errors import DeployError
from nann.python_backend.version_history import Versions
from nann.python_backend.repository.install import install_bundle

first, second, repository = map(Path, sys.argv[1:])
install_bundle(first, repository)
try:
    install_bundle(second, repository)
except DeployError as error:
    assert "No space left on device; nothing was changed" in str(error), error
else:
    sys.exit("it fitted")
assert Versions.read(repository).history == (1,)
assert {path.name for path in (repository / ".versions").iterdir() if path.is_dir()} == {"1"}
assert {path.name for path in repository.glob("scorer/[0-9]*")} == {"1"}
"""


def test_a_full_disk(bundles, tmp_path):
    """A real full disk, with room for one version, in its own mount namespace."""
    if subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False).returncode:
        pytest.skip("mounting needs root")
    disk = tmp_path / "disk"
    disk.mkdir()
    paths = [str(bundle.path) for bundle in bundles.values()]
    script = f'mount -t tmpfs -o size=2200k tmpfs {disk} && exec "$@"'
    command = ["unshare", "-m", "sh", "-c", script, "sh", sys.executable, "-c", FULL_DISK, *paths, str(disk / "r")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_the_wrong_key_the_wrong_repository_and_no_server(server, bundles, tmp_path):
    repository, second = server.options.repository, bundles["second"].path
    for key in ("wrong", None):
        with pytest.raises(ConfigError, match=r"refused the admin key; pass the file .*--admin-key-file"):
            deploy(second, repository, ModelControl(server.http_url, key))
    install_bundle(second, tmp_path / "elsewhere", version=77)
    with pytest.raises(DeployError, match=r"answers with version \d+, but the current one in .*elsewhere is 77"):
        deploy(bundles["first"].path, tmp_path / "elsewhere", server.control)
    with pytest.raises(ServerUnavailable, match="no server answers at"):
        deploy(second, repository, ModelControl(f"127.0.0.1:{free_ports(1)[0]}", KEY))
    with pytest.raises(DeployError, match="which already answers, is this bundle; nothing was changed"):
        deploy(bundles["first"].path, repository, server.control)
    with pytest.raises(DeployError, match=r"there is no version 99 to return to; earlier versions in .*: "):
        rollback_online(repository, server.control, 99)


def test_the_commands_and_a_restart_with_the_first_bundle(server, bundles, tmp_path):
    key = tmp_path / "key"
    key.write_text(f"{KEY}\n")
    key.chmod(0o600)
    repository = server.options.repository
    common = ["--repository", str(repository), "--url", server.http_url, "--admin-key-file", str(key), "--json"]
    number = Versions.read(repository).next
    deployed = run("deploy", str(bundles["second"].path), "--version", str(number), *common)
    assert deployed["version"] == number
    assert served(server) == answer_of(bundles["second"])
    assert named_bundle(server) == bundles["second"].bundle_id
    assert install_if_new(bundles["first"].path, Path(shutil.copytree(repository, tmp_path / "r", symlinks=True))) == (
        number
    )
    returned = run("rollback", *common)
    assert returned["previous"] == number
    assert served(server) == answer_of(bundles["first"])
    assert named_bundle(server) == bundles["first"].bundle_id


def run(*arguments):
    done = subprocess.run([*NANN, *arguments], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])
