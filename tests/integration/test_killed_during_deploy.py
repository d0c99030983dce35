"""`kill -9` of every process at every moment of a deploy, under load: no deploy hangs, and the next one works.

NANN_KILLS sets how many; 8 of them are at the same moment: the old and the new version's process of each model.
"""

import contextlib
import os
import signal
import threading
import time

import pytest
from support.live_bundle import make_bundle
from support.serve_process import serving
from support.under_load import MIXED, Load
from support.waiting import wait_until

from nann.bundle import Bundle
from nann.errors import DeployError, NannError
from nann.python_backend.repository.deploy import deploy
from nann.python_backend.server.control import ModelControl
from nann.python_backend.server.processes import DEAD, child_processes, served_model
from nann.python_backend.version_history import Versions
from nann.signature import MODELS, PROCESSES

pytestmark = [pytest.mark.triton, pytest.mark.slow, pytest.mark.timeout(7200)]

ROUNDS = int(os.environ.get("NANN_KILLS", "100"))
STEP_S = 0.1
LONGEST_DEPLOY_S = 120.0
VERSIONED = [spec.name for spec in MODELS[1:]]
KEY = "aKeyForThisTest"


def kill(serve, model, version, after_s, ended):
    """Kills this version's process of a model `after_s` after the beginning of a deploy, or as soon as there is one."""
    time.sleep(after_s)
    while not ended.is_set():
        for pid, state in child_processes(serve.triton).items():
            if state != DEAD and served_model(pid) == (model, str(version)):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                    return
        time.sleep(0.01)


def test_no_deploy_hangs_and_the_next_one_works(live_bundle_path, tmp_path, monkeypatch):
    monkeypatch.setenv("NANN_ADMIN_KEY", KEY)
    bundles = [Bundle.open(live_bundle_path), make_bundle(tmp_path / "other", seed=2)]
    repository, took_s, failed = tmp_path / "repository", [], 0
    with serving(live_bundle_path, tmp_path) as serve, Load(serve.grpc_url, dict(zip("ab", bundles))) as load:  # noqa: B905
        control, current = ModelControl(serve.http_url, KEY), 0

        def change() -> bool:
            nonlocal current
            start_s = time.monotonic()
            try:
                deploy(bundles[1 - current].path, repository, control)
            except DeployError as error:
                print(f"  {error}")
            took_s.append(time.monotonic() - start_s)
            assert took_s[-1] < LONGEST_DEPLOY_S
            changed = Versions.read(repository).current == 2 - current
            current = 1 - current if changed else current
            return changed

        assert change()  # from now on the versions are 1 and 2
        for number in range(ROUNDS):
            model, new = VERSIONED[number % 4], bool(number // 4 % 2)
            version, ended = (2 - current if new else 1 + current), threading.Event()
            arguments = (serve, model, version, STEP_S * (number // 8), ended)
            killer = threading.Thread(target=kill, args=arguments)
            killer.start()
            changed = change()
            ended.set()
            killer.join()
            print(f"{number}: {model}, {'new' if new else 'old'} version: {took_s[-1]:.1f} s")
            wait_until(
                lambda: serve.is_ready() and set(serve.stubs) == {spec.name for spec in PROCESSES}, lambda: serve.words
            )
            if not changed:
                failed += 1
                wait_until(change, "no later deploy works")
            load.more()
        assert load.answers[MIXED] == 0
        assert serve.is_ready()
    longest = max(took_s)
    print(f"\n{ROUNDS} kills during deploys: {failed} deploys failed, the longest took {longest:.0f} s, 0 mixed")
    assert all(isinstance(failure.error, NannError) for failure in load.failures)
